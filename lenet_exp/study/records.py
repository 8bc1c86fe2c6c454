"""An attempt to train a configuration, and the record of one that has ended: plain values, without Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lenet_exp.base.records import RunKey, State, TrainOn, without_seed
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.config.trainings import FixedTraining


@dataclass(frozen=True)
class Attempt:
    """One attempt to train a configuration; an infeasible or known one is settled without training.

    Attributes:
        key: Role, number and attempt.
        configuration: Configuration to train.
        seed: Root of its random streams; a retry has the seed of the attempt that it retries.
        label: Name that people see, such as ``trial 12`` or ``baseline``.
        origin: The first attempt at this training; its own key if it is the first.
        retry_of: The attempt before this one; None if it is the first.
        exclusive: True to run nothing beside it, because memory ran out when something did.
        train_on: The images that it learns from.
        fixed: The training outside the search that this is an attempt at; None for a trial of the search.
    """

    key: RunKey
    configuration: Configuration
    seed: int
    label: str
    origin: RunKey
    retry_of: RunKey | None = None
    exclusive: bool = False
    train_on: TrainOn = "train"
    fixed: FixedTraining | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What the study stores of one attempt.

    Attributes:
        key: Role, number and attempt.
        state: State of the attempt, as Optuna names it.
        label: Name that people see, such as ``trial 12`` or ``baseline``.
        configuration: Configuration of the training.
        seed: Root of its random streams.
        history: ``val_accuracy`` by epoch.
        result: Measurements, and why it ended: ``examples_per_s``, ``train_s``, ``reason``, …
        value: ``val_accuracy`` after the last epoch; None if it is not complete, or without validation.
    """

    key: RunKey
    state: State
    label: str
    configuration: Configuration
    seed: int
    history: Mapping[int, float] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None

    @property
    def config(self) -> str:
        """The configuration's hash."""
        return self.configuration.id

    @property
    def name(self) -> str | None:
        """The experiment's name for a listed run, alternative or finalist; None for any other attempt."""
        return None if self.key.role in ("trial", "baseline") else without_seed(self.label)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The hyper-parameters by key; the keys are always the same, and an unused one has None."""
        return self.configuration.hyperparameters()

    @property
    def epochs(self) -> int:
        """The number of epochs that it was trained for."""
        return max(self.history, default=0)

    @property
    def reason(self) -> str:
        """Why it ended early or failed, in one line; empty if it did not."""
        return str(self.result.get("reason") or "")

    @property
    def infeasible(self) -> bool:
        """True if its configuration has no network; such trials do not count against the budget."""
        return self.reason.startswith("infeasible")

    @property
    def superseded(self) -> bool:
        """True if it failed, and another attempt takes its place."""
        return self.state == "FAIL" and bool(self.result.get("retried"))
