"""An attempt that is to be trained, and what is known of one that was: plain values, without Optuna."""

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
    """A configuration that is to be trained now, or has been found out without training.

    Attributes:
        key: Role, number and attempt.
        configuration: What is to be trained.
        seed: Root of its random streams; a retry has the seed of what it retries.
        label: What people call it.
        origin: The first attempt at this training, itself if it is the first.
        retry_of: The attempt before this one; None if it is the first.
        alone: Whether nothing may run beside it, because there was no memory when something did.
        train_on: The images that it learns from.
        fixed: The training outside the search that this is an attempt at; None for a trial of the search.
    """

    key: RunKey
    configuration: Configuration
    seed: int
    label: str
    origin: RunKey
    retry_of: RunKey | None = None
    alone: bool = False
    train_on: TrainOn = "train"
    fixed: FixedTraining | None = None


@dataclass(frozen=True)
class TrialRecord:
    """What the study knows of one attempt.

    Attributes:
        key: Role, number and attempt.
        state: Its state, as Optuna names it.
        label: What people call it, as in ``trial 12`` or ``baseline``.
        configuration: What was to be trained.
        seed: Root of its random streams.
        history: ``val_accuracy`` by epoch.
        result: What was measured and why it ended: ``examples_per_s``, ``train_s``, ``reason``, …
        value: ``val_accuracy`` after the last epoch; None unless the attempt is complete.
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
        """What the experiment calls a training outside its search, such as a listed run; None for others."""
        return None if self.key.role in ("trial", "baseline") else without_seed(self.label)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The hyper-parameters by key, always the same keys; those that are not used are None."""
        return self.configuration.hyperparameters()

    @property
    def epochs(self) -> int:
        """How many epochs it was trained."""
        return max(self.history, default=0)

    @property
    def reason(self) -> str:
        """Why it ended early or failed, in one line; empty if it did not."""
        return str(self.result.get("reason") or "")

    @property
    def infeasible(self) -> bool:
        """Whether its configuration has no network; such trials are outside the budget."""
        return self.reason.startswith("infeasible")

    @property
    def superseded(self) -> bool:
        """Whether it failed and is tried again by another attempt."""
        return self.state == "FAIL" and bool(self.result.get("retried"))
