"""Attempts, what the study stores of them, and what keeps it from storing them; nothing here needs Optuna."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lenet_exp.base.errors import LockedError, StoreError
from lenet_exp.base.records import RunKey, State, TrainOn, without_seed
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.config.trainings import FixedTraining, trained_on

_STOPS = "this sweep stops and leaves the study alone; run the same command again to go on with what is there"


#: Name of an attempt's `TrialRecord.digest` in its result.
DIGEST = "record_sha256"
#: Key, in records that exist, of `FixedTraining.name`; so it cannot be renamed.
TRAINING = "job"


@dataclass(frozen=True)
class Attempt:
    """An attempt at a training, as the study hands it out.

    It ends without being trained if its configuration is infeasible, or if an earlier trial has the result.

    Attributes:
        key: Role, trial number and attempt number; all attempts at a training share its number.
        configuration: Configuration to train.
        seed: Root of its random streams; a retry has the seed of the attempt that it retries.
        label: Name that people see, such as ``trial 12`` or ``baseline``.
        origin: Key of the first attempt at this training; equal to ``key`` if this is the first.
        retry_of: Key of the attempt that this one retries; None if this is the first.
        exclusive: True to train it with no other attempt beside it, because memory ran out before.
        train_on: Images to train on, a `TrainOn`.
        fixed: Fixed training that this is an attempt at; None for a trial.
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
        key: Role, trial number and attempt number.
        state: State of the attempt, under Optuna's name.
        label: Name that people see, such as ``trial 12`` or ``baseline``.
        configuration: Configuration of the training.
        seed: Root of its random streams.
        history: ``val_accuracy`` by epoch; NaN without a validation split.
        result: Measurements, and the ``reason`` unless COMPLETE, by name: ``train_s``, ``examples_per_s`` …
        value: ``val_accuracy`` after the last epoch; None if not COMPLETE, or without a validation split.
        number: Optuna's number of the attempt, which differs from the trial's if it was tried before.
        origin: Key of the first attempt at the training; None if this is the first.
        followed: True if a later attempt at the same training was queued or begun.
    """

    key: RunKey
    state: State
    label: str
    configuration: Configuration
    seed: int
    history: Mapping[int, float] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    number: int = -1
    origin: RunKey | None = None
    followed: bool = field(default=False, compare=False, repr=False)

    @property
    def trial(self) -> int:
        """The number of the training, by which people know it, however many attempts it took."""
        return (self.origin or self.key).trial

    @property
    def config(self) -> str:
        """The configuration's hash."""
        return self.configuration.id

    @property
    def name(self) -> str | None:
        """The experiment's name for a listed run, alternative or finalist; None for a trial or baseline."""
        return None if self.key.role in ("trial", "baseline") else without_seed(self.label)

    @property
    def train_on(self) -> TrainOn:
        """The images that the attempt was trained on."""
        return trained_on(self.result.get(TRAINING, ""))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The hyper-parameters by key; every record has all keys, and an unused one has None."""
        return self.configuration.hyperparameters()

    @property
    def digest(self) -> str:
        """The SHA-256 of what the attempt was and achieved; as recorded, unless somebody has changed it."""
        result = {name: value for name, value in self.result.items() if name != DIGEST}
        history = sorted(self.history.items())
        content = [self.config, self.seed, self.state, self.value, history, result]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def is_edited(self) -> bool:
        """True if the record is not the one that was told."""
        if DIGEST in self.result:
            return bool(self.result[DIGEST] != self.digest)
        # Until November 2026 there was no digest.
        return self.value is not None and self.history.get(self.epochs, self.value) != self.value

    @property
    def epochs(self) -> int:
        """The number of epochs that were trained."""
        return max(self.history, default=0)

    @property
    def reason(self) -> str:
        """The cause, in one line, if the attempt was pruned or failed; otherwise empty."""
        return str(self.result.get("reason") or "")

    @property
    def infeasible(self) -> bool:
        """True if no network can have this configuration; such trials do not count against the budget."""
        return self.reason.startswith("infeasible")

    @property
    def kind(self) -> str:
        """How it ended, in a word: complete, infeasible, diverged, timeout, oom, failed or pruned."""
        if self.state == "COMPLETE":
            return "complete"
        first = self.reason.partition(":")[0]
        named = first in ("infeasible", "diverged", "timeout", "oom") and self.state == "PRUNED"
        return first if named else "failed" if self.state == "FAIL" else "pruned"

    @property
    def hopeless(self) -> bool:
        """True if another attempt would end alike, as the configuration alone is the cause."""
        return self.kind in ("infeasible", "diverged")

    @property
    def time_limit_s(self) -> float | None:
        """The limit in seconds that ended the attempt; None if no limit of time did."""
        if self.kind != "timeout":
            return None
        # Until November 2026 only the reason had the limit, with six digits.
        told = self.reason.removeprefix("timeout: not done after ").removesuffix(" s")
        limit = self.result.get("trial_timeout_s", told)
        try:
            return float(limit)
        except ValueError:
            return None

    @property
    def memory_limit_bytes(self) -> int | None:
        """The limit in bytes within which the attempt found no memory, or failed; None without a limit."""
        return self.result.get("trial_memory_bytes") if self.kind in ("oom", "failed") else None

    @property
    def limited(self) -> bool:
        """True if a limit of the sweep ended the attempt, so that another limit can end it otherwise."""
        return self.time_limit_s is not None or self.memory_limit_bytes is not None

    @property
    def superseded(self) -> bool:
        """True if another attempt at the same training takes the place of this one, or is going to."""
        return self.followed or (self.state == "FAIL" and bool(self.result.get("retried")))


def created_by_another(number: int) -> LockedError:
    """Return the error to raise if another process has created a trial of this number."""
    return LockedError(f"trial {number} was created by another process; {_STOPS}")


def ended_by_another(number: int) -> LockedError:
    """Return the error to raise if another process has changed a trial that this one is training."""
    return LockedError(f"trial {number} was begun or ended by another process; {_STOPS}")


def gone(number: int) -> StoreError:
    """Return the error to raise if a trial is no longer in the study, or another one has its place."""
    return StoreError(
        f"trial {number} is gone from the study's storage; this sweep stops and leaves it alone,"
        " and 'lenet-exp doctor' says what is there"
    )
