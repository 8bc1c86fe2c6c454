"""Select what a study's plots show: the records, their order and colours, and where an axis starts."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lenet_exp.base.records import EpochResult
from lenet_exp.config.hyperparameters import HYPERPARAMETERS
from lenet_exp.results.aggregate import pareto_front
from lenet_exp.study.records import TrialRecord


@dataclass(frozen=True)
class Curve:
    """The learning curve of one training.

    Attributes:
        label: Name of the training in a legend.
        epochs: Result of each epoch, in order.
        is_baseline: True to draw the curve in the baseline's colour.
    """

    label: str
    epochs: Sequence[EpochResult]
    is_baseline: bool = False


def tried(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials or listed runs with at least one epoch, sorted by number."""
    return sorted(
        (r for r in records if r.key.role in ("trial", "run") and r.history and not r.superseded),
        key=lambda r: r.trial,
    )


def complete(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials or listed runs that are complete, sorted by number."""
    return [r for r in tried(records) if r.state == "COMPLETE" and r.value is not None]


def baseline_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the baseline's record, or None if it is not complete."""
    return next((r for r in records if r.key.role == "baseline" and r.value is not None), None)


def incumbent(records: Sequence[TrialRecord]) -> list[tuple[int, float]]:
    """Return the number of each complete trial, with the best val_accuracy up to and including it."""
    done = complete(records)
    best = itertools.accumulate((r.value or 0.0 for r in done), max)
    return list(zip((r.trial for r in done), best, strict=True))


def on_front(records: Sequence[TrialRecord], key: str, sign: int) -> list[TrialRecord]:
    """Return the records on the Pareto front of accuracy and a measurement, ordered by the measurement.

    Args:
        records: Records of attempts, each with ``key`` in its result.
        key: Name of the measurement, such as ``n_parameters``.
        sign: 1 if more of the measurement is better, -1 if less is.
    """
    flags = pareto_front([(last_accuracy(record), sign * record.result[key]) for record in records])
    return sorted(itertools.compress(records, flags), key=lambda record: record.result[key])


def floor(values: Sequence[float]) -> float:
    """Return the accuracy at which an axis starts, so that a few failures far below do not flatten the rest.

    Example:
        >>> round(floor([0.1, 0.85, 0.86, 0.87, 0.88, 0.89]), 3)
        0.765
    """
    if not values:
        return 0.0
    middle, best = statistics.median(values), max(values)
    return max(min(values), middle - 4 * max(best - middle, 0.01))


def varied(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyper-parameters that differ between complete trials or listed runs."""
    values = [r.values for r in complete(records)]
    return [
        name for name in HYPERPARAMETERS if len({v.get(name) for v in values if v.get(name) is not None}) > 1
    ]


def last_accuracy(record: TrialRecord) -> float:
    """Return the val_accuracy after an attempt's last epoch, or 0 if there was no epoch."""
    return record.value if record.value is not None else record.history.get(record.epochs, 0.0)
