"""The results of an experiment for notebooks: pandas frames, verdicts, and trained networks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lenet_exp.base.records import Role
from lenet_exp.results.ablation import ablation_table
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.results.verdicts.judging import Verdict
from lenet_exp.results.views.curves import curves_table
from lenet_exp.results.views.feature_maps import trained_network

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from torch import nn

    from lenet_exp.config.experiment import Experiment

_ROLES: tuple[Role, ...] = ("baseline", "trial", "run", "ablation", "confirm")


class Results:
    """The recorded results of one experiment, as `lenet_exp.open_results` and `run_sweep` return them.

    The study is read once, when the object is created; nothing is written.
    """

    def __init__(self, recorded: ExperimentResults) -> None:
        """Wrap recorded results for use in a notebook.

        Args:
            recorded: Results that `lenet_exp.results.lookup.read_results` returned.
        """
        self._recorded = recorded

    @property
    def experiment(self) -> Experiment:
        """The experiment, with the data settings that its study was started with."""
        return self._recorded.experiment

    @property
    def folder(self) -> Path:
        """The experiment's folder, with ``leaderboard.csv``, ``report.html``, the spool and checkpoints."""
        return self._recorded.layout.home

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard, the best configuration first; for an ablation, the ablation's table instead."""
        if self.experiment.ablate:
            return ablation_table(self.experiment, self._recorded.records).frame()
        return self._recorded.leaderboard.frame()

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves: a row for each epoch of each training, including those of a confirmation.

        The columns are ``label``, ``role``, ``config``, ``state``, ``seed``, ``epoch`` and the metrics.
        """
        return curves_table(self._recorded.spool.run_logs(warnings.warn), _ROLES).frame()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The last confirmation's verdict on each finalist; empty before a confirmation."""
        evaluation = self._recorded.confirmation.evaluation
        return tuple(map(_verdict, evaluation.verdicts)) if evaluation else ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdicts and the choice of the champion in plain words; empty before a confirmation."""
        return self._recorded.confirmation.sentences

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Advice on what to do after the confirmation, in plain words; empty before it."""
        return self._recorded.confirmation.next_steps

    @cached_property
    def champion(self) -> nn.Module:
        """The champion's trained network; before a confirmation, the best so far. See `network`."""
        return self.network("champion")

    def network(self, name: str | int) -> nn.Module:
        """Return a trained network, on the CPU and in evaluation mode.

        Args:
            name: A trial's number, a label such as ``trial 3`` or ``baseline``, at least the first eight
                characters of an MLflow run id, or ``champion``.

        Returns:
            A module that maps ``(n, 1, size, size)`` float32 images in [0, 1] to ``(n, 10)`` logits.

        Raises:
            ConfigError: If nothing has this name, or several attempts have it.
            NoResultError: If the attempt was pruned or failed, and so has no network.
            DataError: If the network's weights are missing or damaged.
        """
        return trained_network(self._recorded, self._recorded.find(name))

    def __repr__(self) -> str:
        complete = sum(record.state == "COMPLETE" for record in self._recorded.records)
        last = self.sentences[-1:] or ("not confirmed",)
        return f"<Results of {self.experiment.name!r}: {complete} complete trainings, {last[0]}>"


def _verdict(kept: Mapping[str, Any]) -> Verdict:
    """Return the verdict that the study stores as ``kept``, with NaN for the numbers stored as None."""
    # Verdicts from before November 2026 lack some numbers, and have others.
    numbers: dict[str, Any] = {
        field.name: math.nan if kept.get(field.name) is None else kept[field.name]
        for field in fields(Verdict)
    }
    return Verdict(**{**numbers, "settled_by": kept.get("settled_by")})
