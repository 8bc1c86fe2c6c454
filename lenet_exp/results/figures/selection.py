"""Select what figures show: the records and their order, their texts, and where an axis starts."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import TypeVar

from lenet_exp.base.errors import mask_url
from lenet_exp.config.hyperparameters import HYPERPARAMETERS, split_key
from lenet_exp.study.records import TrialRecord

Item = TypeVar("Item")


def tried(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials or listed runs with at least one epoch, sorted by number."""
    return sorted(
        (r for r in records if r.key.role in ("trial", "run") and r.history and not r.superseded),
        key=lambda r: r.trial,
    )


def complete(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials or listed runs that are complete, sorted by number."""
    return [r for r in tried(records) if r.state == "COMPLETE" and _is_number(r.value)]


def baseline_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the baseline's record, or None if it is not complete."""
    return next((r for r in records if r.key.role == "baseline" and _is_number(r.value)), None)


def incumbent(records: Sequence[TrialRecord]) -> list[tuple[int, float]]:
    """Return the number of each complete trial, with the best val_accuracy up to and including it."""
    done = complete(records)
    best = itertools.accumulate((r.value or 0.0 for r in done), max)
    return list(zip((r.trial for r in done), best, strict=True))


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


def measured(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials or listed runs with a val_accuracy after their last epoch, sorted by number."""
    return [r for r in tried(records) if _is_number(last_accuracy(r))]


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def baseline_accuracy(records: Sequence[TrialRecord]) -> float | None:
    """Return the baseline's val_accuracy, over its seeds the mean; None if it is not complete."""
    values = [r.value for r in records if r.key.role == "baseline" and r.value is not None]
    values = list(filter(math.isfinite, values))
    return statistics.fmean(values) if values else None


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial or listed run with the highest val_accuracy, the first of equal ones."""
    return max(complete(records), key=lambda r: (r.value or 0.0, -r.trial), default=None)


def sample(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many items, evenly spaced, so that every drawing of a study shows the same.

    Args:
        items: Items in their order.
        most: Largest number of items to return.

    Example:
        >>> sample(range(10), 4)
        [0, 2, 5, 7]
    """
    n = min(len(items), most)
    return [items[i * len(items) // n] for i in range(n)]


def condition(name: str) -> str:
    """Return when a hyper-parameter is used, such as ``only with 2 or more conv_layers``; empty if always.

    Example:
        >>> condition("kernel_size_3"), condition("lr")
        ('only with 3 conv_layers', '')
    """
    if name == "momentum":
        return "only with sgd"
    base, layer = split_key(name)
    if layer is None:
        return ""
    layers, n, most = ("fc_layers", layer + 1, 3) if base == "fc_width" else ("conv_layers", layer, 3)
    return "" if n == 1 else f"only with {n}{'' if n == most else ' or more'} {layers}"


def summary(record: TrialRecord, names: Sequence[str]) -> str:
    """Return the text that is shown when a record is pointed at: its label, accuracy, values and reason.

    Args:
        record: Record of an attempt.
        names: Hyper-parameters to name; one that the record does not use is left out.
    """
    values = [f"{n} {value_text(record.values[n])}" for n in names if record.values.get(n) is not None]
    rows = [", ".join(values[i : i + 3]) for i in range(0, len(values), 3)]
    accuracy = f"{record.label}: {last_accuracy(record):.4f}"
    return "\n".join([accuracy, *rows, *([mask_url(record.reason)[:200]] if record.reason else [])])


def subject(label: str, *, is_first: bool = True) -> str:
    """Return a label as the subject of a sentence; a name that the user gave keeps its letters.

    Args:
        label: Label of a training, such as ``trial 3`` or ``baseline``.
        is_first: True at the start of a sentence.

    Example:
        >>> subject("baseline"), subject("trial 3", is_first=False)
        ('The baseline', 'trial 3')
    """
    name = f"the {label}" if label.startswith("baseline") else label
    is_ours = label.startswith(("baseline", "trial "))
    return f"{name[0].upper()}{name[1:]}" if is_ours and is_first else name


def value_text(value: object) -> str:
    """Return a hyper-parameter's value as text, a fraction with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
