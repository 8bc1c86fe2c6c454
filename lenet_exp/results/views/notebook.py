"""What a notebook gets of an experiment: frames to go on with, verdicts, and trained networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lenet_exp.base.records import Role
from lenet_exp.results.ablation import ablation_table
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.verdicts import Verdict
from lenet_exp.results.views.curves import curves_table
from lenet_exp.results.views.feature_maps import trained_network

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from torch import nn

    from lenet_exp.config.experiment import Experiment

_ROLES: tuple[Role, ...] = ("baseline", "trial", "run", "ablation", "confirm")


class Results:
    """What was recorded of an experiment, as it was when this was made; nothing is written."""

    def __init__(self, recorded: ExperimentResults) -> None:
        """Wrap what was read.

        Args:
            recorded: Study and spool of the experiment; see `lenet_exp.results.lookup.read_results`.
        """
        self._recorded = recorded

    @property
    def experiment(self) -> Experiment:
        """The experiment, its data section as the study was started with."""
        return self._recorded.experiment

    @property
    def folder(self) -> Path:
        """The experiment's folder: ``leaderboard.csv``, ``report.html`` and what it is resumed from."""
        return self._recorded.layout.home

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard, a row for each configuration, the best first; for an ablation its own table."""
        if self.experiment.ablate:
            return ablation_table(self.experiment, self._recorded.records).frame()
        return self._recorded.leaderboard().frame()

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves: a row for each epoch of each training, those of a confirmation too.

        The columns are ``label``, ``role``, ``config``, ``state``, ``seed``, ``epoch`` and the metrics.
        """
        return curves_table(self._recorded.spool.run_logs(), _ROLES).frame()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The last confirmation's verdict on each finalist; empty before a confirmation."""
        evaluation = self._recorded.confirmation.evaluation
        return tuple(map(_verdict, evaluation.verdicts)) if evaluation else ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdicts and the choice of the champion in plain words; empty before a confirmation."""
        return self._recorded.confirmation.sentences

    @cached_property
    def champion(self) -> nn.Module:
        """The champion's trained network; before a confirmation the best one so far. See `network`."""
        return self.network("champion")

    def network(self, name: str) -> nn.Module:
        """Return a trained network, on the CPU and in evaluation mode.

        Args:
            name: A trial's number, a label such as ``run 3`` or ``baseline``, an MLflow run id, or
                ``champion``.

        Returns:
            A module from ``(n, 1, size, size)`` float32 in [0, 1] to ``(n, 10)`` logits.

        Raises:
            ConfigError: If nothing has this name.
            NoResultError: If that training has no network, as it was pruned or has failed.
            DataError: If its weights are damaged.
        """
        return trained_network(self._recorded, self._recorded.find(name))

    def __repr__(self) -> str:
        complete = sum(record.state == "COMPLETE" for record in self._recorded.records)
        last = self.sentences[-1:] or ("not confirmed",)
        return f"<Results of {self.experiment.name!r}: {complete} complete trainings, {last[0]}>"


def _verdict(kept: Mapping[str, Any]) -> Verdict:
    """Return a verdict from the values that the study keeps, in which an unknown number is None."""
    numbers = {name: math.nan if value is None else value for name, value in kept.items()}
    return Verdict(**{**numbers, "seeds_to_settle": kept["seeds_to_settle"]})
