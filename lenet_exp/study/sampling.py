"""The two Optuna studies of an experiment, with the sampler and the pruner that the experiment names."""

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

#: TPE models at most this many trials as good ones, which is Optuna's default, and is shown at most this many
#: in all. Shown more, it takes longer and draws no better (experiments/LOG.md, Speed: what a sweep costs
#: beside its arithmetic).
_GOOD, _SHOWN = 25, 200


def make_sampler(experiment: Experiment, seed: int) -> BaseSampler:
    """Return the sampler that the experiment names.

    Args:
        experiment: Experiment that names the sampler, and says how many trials it draws at random first.
        seed: Seed of the sampler's random numbers, at least 0; ``qmc`` uses the experiment's seed instead.
    """
    seed %= 2**32  # NumPy's legacy seeds
    startup = experiment.search.startup_trials
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match experiment.search.sampler:
            case "tpe":
                # group: the parameters of a layer that only some trials have are modelled together.
                return optuna.samplers.TPESampler(
                    n_startup_trials=startup, multivariate=True, group=True, constant_liar=True, seed=seed
                )
            case "qmc":
                # A resumed study continues the same sequence, so its scrambling must not change.
                return optuna.samplers.QMCSampler(
                    scramble=True, seed=experiment.search.seed % 2**32, warn_independent_sampling=False
                )
            case "cmaes":
                return optuna.samplers.CmaEsSampler(
                    n_startup_trials=startup, seed=seed, warn_independent_sampling=False
                )
            case "random" | "grid":  # `Study.ask` queues the points of a grid
                return optuna.samplers.RandomSampler(seed=seed)


def hidden_from_sampler(experiment: Experiment, trials: Sequence[FrozenTrial]) -> frozenset[int]:
    """Return the numbers of the trials to hide from TPE: all but the latest 175 and the best 25 before them.

    TPE compares the best 25 trials with the others, of which the oldest have little weight.

    Args:
        experiment: Experiment that names the sampler; unless it is ``tpe``, nothing is hidden.
        trials: All trials of the search, in the order of their numbers.
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
    """The points of a grid search, in a random order that the experiment's seed determines."""

    def __init__(self, experiment: Experiment) -> None:
        """List all points of the experiment's space, and shuffle them."""
        self._space = experiment.search_space
        self._points: list[dict[str, Any]] = self._space.grid()
        random.Random(experiment.search.seed).shuffle(self._points)

    def next(self, drawn: Container[str]) -> dict[str, Any] | None:
        """Take the next point whose configuration was not drawn before.

        Args:
            drawn: Hashes of all configurations drawn so far, as `Configuration.id` gives them.

        Returns:
            The point's values by hyper-parameter, or None if no point is left.
        """
        while self._points:
            point = self._points.pop(0)
            if self._space.configuration(point).id not in drawn:
                return point
        return None


def load_search(storage: BaseStorage, experiment: Experiment) -> optuna.Study:
    """Open or create the Optuna study that the sampler searches.

    Args:
        storage: Storage that holds, or will hold, the study.
        experiment: Experiment that names the study, its sampler and its pruner.
    """
    study = _load(storage, experiment.name)
    # A sampler that started from the same seed after every resume would repeat its first draws.
    done = len(study.get_trials(deepcopy=False))
    study.sampler = make_sampler(experiment, derive_seed(experiment.search.seed, "sampler", done))
    study.pruner = make_pruner(experiment)
    return study


def load_fixed(storage: BaseStorage, experiment: Experiment) -> optuna.Study:
    """Open or create the Optuna study of the fixed trainings.

    Args:
        storage: Storage that holds, or will hold, the study.
        experiment: Experiment that the study is named after, with ``/fixed`` appended.
    """
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
