"""The plain values that cross processes, files and modules: what an attempt is, and what it gave.

Nothing here needs torch, Optuna or MLflow, so that a driver can read what a worker wrote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

#: ``trial`` is drawn by the sampler; the other roles are trainings that no sampler chose.
Role = Literal["trial", "baseline", "run", "confirm", "ablation"]

#: The images that a training learns from; with those of the validation joined none are left to validate on.
TrainOn = Literal["train", "train+validation"]

#: As Optuna names them. ``FAIL`` is a bug or a crash, ``PRUNED`` a trial ended on purpose.
State = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]

#: The metrics of an epoch, under the one name each has everywhere.
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "examples_per_s", "train_s")


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of training gave.

    Attributes:
        epoch: Counted from 1; the number of epochs behind the model.
        train_loss: Mean over the epoch's training examples, as the weights changed.
        train_accuracy: Share in [0, 1], likewise.
        val_loss: Mean over the validation split after the epoch; NaN where its images are trained on.
        val_accuracy: Share in [0, 1] of the validation split after the epoch; NaN likewise.
        examples_per_s: Training examples over the wall time of the training pass.
        train_s: Seconds of training so far, evaluation left out, all epochs together.
        evaluation_s: Seconds of the evaluation after the epoch; 0 if nobody looked.
        watched: What the experiment watches besides, by name; empty unless it asks for something.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    examples_per_s: float
    train_s: float
    evaluation_s: float = 0.0
    watched: Mapping[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, what is watched among them, without the epoch."""
        return {name: getattr(self, name) for name in METRICS} | dict(self.watched)

    def measured(self) -> dict[str, float]:
        """Return the metrics by name, without those of a validation that there was not."""
        return {name: value for name, value in self.metrics().items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def without_seed(label: str) -> str:
    """Return a label without the number of the seed, which tells trainings of one configuration apart.

    Example:
        >>> without_seed("trial 3, seed 2"), without_seed("baseline")
        ('trial 3', 'baseline')
    """
    return re.sub(r", seed \d+$", "", label)


class RunKey(NamedTuple):
    """Names one attempt: its role, its number within the role's study, and the try.

    Example:
        >>> RunKey("trial", 12, 1).stem
        'trial-00012-1'
        >>> RunKey.from_stem("trial-00012-1")
        RunKey(role='trial', trial=12, attempt=1)
    """

    role: str
    trial: int
    attempt: int

    @property
    def stem(self) -> str:
        """The name of the attempt's files, without their ending."""
        return f"{self.role}-{self.trial:05d}-{self.attempt}"

    @classmethod
    def from_stem(cls, stem: str) -> RunKey:
        """Return the key that ``stem`` names.

        Raises:
            ValueError: If it names none.
        """
        found = re.fullmatch(r"([a-z]+)-(\d{5,})-(\d+)", stem)
        if not found:
            raise ValueError(f"not the name of an attempt: {stem!r}")
        return cls(found[1], int(found[2]), int(found[3]))
