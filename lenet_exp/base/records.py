"""Plain values that pass between processes, files and modules: the key of an attempt, the result of an epoch.

The module needs neither torch nor Optuna nor MLflow, so both the driver and the workers can import it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

#: What a training is for. The sampler draws the configuration of a ``trial``; all others are fixed trainings.
Role = Literal["trial", "baseline", "run", "confirm", "ablation"]

#: The images to train on. ``train+validation`` leaves none to validate on. ``train, resampled`` is the
#: training split of another division, which is drawn from the training's own seed.
TrainOn = Literal["train", "train+validation", "train, resampled"]

#: What the networks of a confirmation are trained on, in words that follow the number of seeds.
IMAGES_IN_WORDS: Mapping[TrainOn, str] = {
    "train": "",
    "train+validation": ", trained on the validation images too",
    "train, resampled": ", with another division into training and validation images for every seed",
}

#: The states of an attempt, by Optuna's names: ``FAIL`` after a bug or a crash, ``PRUNED`` if ended early.
State = Literal["WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"]

#: The names of the metrics that every epoch has; they are the same in code, records, MLflow and CSV files.
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "examples_per_s", "train_s")


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch of training.

    Attributes:
        epoch: Number of the epoch, counted from 1.
        train_loss: Mean loss of the training images, each measured in its step, while the weights change.
        train_accuracy: Share of the training images classified correctly in their step, in [0, 1].
        val_loss: Mean loss of the validation images after the epoch; NaN if there are none.
        val_accuracy: Share of the validation images classified correctly, in [0, 1]; NaN if there are none.
        examples_per_s: Training images per second in this epoch, evaluation excluded.
        train_s: Seconds of training in all epochs so far, evaluation excluded.
        evaluation_s: Seconds that the evaluation after the epoch took; 0 if it was not measured.
        watched: Additional metrics that ``[watch]`` of the experiment asks for, by name.
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
        """Return all metrics by name, including the watched ones."""
        return {name: getattr(self, name) for name in METRICS} | dict(self.watched)

    def measured(self) -> dict[str, float]:
        """Return the metrics that are not NaN, by name; without validation images, ``val_...`` are NaN."""
        return {name: value for name, value in self.metrics().items() if not math.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as values that JSON can hold."""
        return asdict(self)


def without_seed(label: str) -> str:
    """Return a label without ``, seed N``, so that trainings that differ only in the seed have the same one.

    Example:
        >>> without_seed("trial 3, seed 2"), without_seed("baseline")
        ('trial 3', 'baseline')
    """
    return re.sub(r", seed \d+$", "", label)


class RunKey(NamedTuple):
    """The key of one attempt at a training.

    Attributes:
        role: A `Role`.
        trial: Number of the training, from 0, which all its attempts share; fixed trainings are numbered
            apart from the trials. Before November 2026 each attempt had Optuna's number of its own.
        attempt: Number of the attempt at its training; 1 for the first.

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
        """The name of the attempt's files, without suffix."""
        return f"{self.role}-{self.trial:05d}-{self.attempt}"

    @classmethod
    def from_stem(cls, stem: str) -> RunKey:
        """Return the key whose `stem` is ``stem``.

        Raises:
            ValueError: If ``stem`` is not the stem of a key.
        """
        match = re.fullmatch(r"([a-z]+)-(\d{5,})-(\d+)", stem)
        if not match:
            raise ValueError(f"not the name of an attempt: {stem!r}")
        return cls(match[1], int(match[2]), int(match[3]))
