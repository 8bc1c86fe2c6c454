"""Optuna's two studies of an experiment, with the sampler and the pruner that it names."""

from __future__ import annotations

import heapq
import random
import warnings
from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment

#: Of a maximum, how many trials TPE models as good ones, and how many of all it is shown.
_GOOD, _SHOWN = 25, 200


def make_sampler(experiment: Experiment, seed: int) -> BaseSampler:
    """Return the sampler that the experiment names, with every argument that matters spelled out."""
    seed %= 2**32  # NumPy's legacy seeds
    startup = experiment.search.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match experiment.search.sampler:
            case "tpe":
                # group: layers that only some trials have are modelled together with their peers.
                return optuna.samplers.TPESampler(
                    n_startup_trials=startup, multivariate=True, group=True, constant_liar=True, seed=seed
                )
            case "qmc":
                # The sequence goes on where the study stands, so its scrambling must stay the same.
                return optuna.samplers.QMCSampler(
                    scramble=True, seed=experiment.search.seed % 2**32, warn_independent_sampling=False
                )
            case "cmaes":
                return optuna.samplers.CmaEsSampler(
                    n_startup_trials=startup, seed=seed, warn_independent_sampling=False
                )
            case "random" | "grid":  # the points of a grid are queued, see Study.ask
                return optuna.samplers.RandomSampler(seed=seed)


def hidden_from_sampler(experiment: Experiment, trials: Sequence[FrozenTrial]) -> frozenset[int]:
    """Return the numbers of the trials that the sampler does not learn from.

    TPE compares the 25 best trials with all others. A few hundred of the latest stand for these as well as
    thousands do, in a tenth of the time, and the oldest have little weight anyway.

    Args:
        experiment: The experiment, which names the sampler.
        trials: All trials, in the order of their numbers.
    """
    if experiment.search.sampler != "tpe" or len(trials) <= _SHOWN:
        return frozenset()
    before = trials[: _GOOD - _SHOWN]
    complete = (trial for trial in before if trial.state == TrialState.COMPLETE)
    best = heapq.nlargest(_GOOD, complete, key=lambda trial: trial.values[0])
    return frozenset(trial.number for trial in before) - {trial.number for trial in best}


def make_pruner(experiment: Experiment) -> BasePruner:
    """Return the pruner that the experiment names."""
    search = experiment.search
    match search.pruner:
        case "hyperband":
            return optuna.pruners.HyperbandPruner(
                min_resource=search.min_epochs,
                max_resource=experiment.base["epochs"],
                reduction_factor=search.reduction_factor,
            )
        case "halving":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=search.min_epochs, reduction_factor=search.reduction_factor
            )
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=search.min_epochs)
        case "none":
            return optuna.pruners.NopPruner()


class Grid:
    """The points of a grid search, in an order that follows from the experiment's seed."""

    def __init__(self, experiment: Experiment) -> None:
        """Count out the points."""
        self._space = experiment.search_space
        self._points: list[dict[str, Any]] = self._space.grid()
        random.Random(experiment.search.seed).shuffle(self._points)

    def next(self, drawn: Container[str]) -> dict[str, Any] | None:
        """Return the first point that is left and was not drawn; None if there is none.

        Args:
            drawn: Hashes of the configurations that were drawn.
        """
        while self._points:
            point = self._points.pop(0)
            if self._space.configuration(point).id not in drawn:
                return point
        return None


def load_search(storage: BaseStorage, experiment: Experiment) -> optuna.Study:
    """Open or create the study that the sampler searches."""
    study = _load(storage, experiment.name)
    # A sampler that began with the same seed at every resume would repeat its first draws.
    done = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(experiment, derive_seed(experiment.search.seed, "sampler", done))
    study.pruner = make_pruner(experiment)
    return study


def load_fixed(storage: BaseStorage, experiment: Experiment) -> optuna.Study:
    """Open or create the study of the trainings that no sampler chose."""
    return _load(storage, f"{experiment.name}/fixed")


def _load(storage: BaseStorage, name: str) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=optuna.pruners.NopPruner(),
    )
