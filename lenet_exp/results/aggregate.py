"""Results of many trainings at once: the mean of a configuration over its seeds, and the Pareto front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lenet_exp.study.records import TrialRecord

#: Measurements that are averaged over the seeds if every seed has them, as ``value`` is.
_MEANS = ("examples_per_s", "train_s", "test_loss", "test_accuracy")


def over_seeds(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the records, averaging those that differ only in the seed into one.

    Trials stay as they are, since each has a single seed. Other records are grouped by role and
    configuration. Each group becomes one record with the key of its first complete one, the mean ``value``,
    and the means of the measurements in ``result``. That also has ``n_seeds``, ``val_accuracy_sem``, and
    ``val_delta``: the mean difference from the baseline on the seeds that both have.
    """
    trials: list[TrialRecord] = []
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if record.key.role == "trial":
            trials.append(record)
        else:
            groups.setdefault((record.key.role, record.config), []).append(record)
    baseline = by_seed(
        record for (role, _), group in groups.items() if role == "baseline" for record in group
    )
    return trials + [_over_group(group, baseline) for group in groups.values()]


def by_seed(records: Iterable[TrialRecord]) -> dict[int, TrialRecord]:
    """Return the complete records by seed; if several have the same seed, the last of them."""
    return {record.seed: record for record in records if record.value is not None}


def _over_group(group: Sequence[TrialRecord], baseline: dict[int, TrialRecord]) -> TrialRecord:
    # A confirmation on another data set may have been repeated on other images: the last counts.
    complete = list(by_seed(group).values())
    if not complete or (len(group) == 1 and len(baseline) < 2):
        return group[0]
    values = [record.value for record in complete if record.value is not None]
    shared = [record for record in complete if record.seed in baseline]
    differences = [(record.value or 0.0) - (baseline[record.seed].value or 0.0) for record in shared]
    result = dict(complete[0].result)
    for name in _MEANS:
        numbers = [number for record in complete if (number := record.result.get(name)) is not None]
        if len(numbers) == len(complete):
            result[name] = statistics.fmean(numbers)
    result |= {
        "n_seeds": len(values),
        "val_accuracy_sem": statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "val_delta": statistics.fmean(differences) if differences else None,
    }
    return replace(complete[0], value=statistics.fmean(values), result=result)


def configurations(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the record of each row of the leaderboard, which leaves out the trainings of a confirmation."""
    return over_seeds(r for r in records if not r.superseded and r.key.role != "confirm")


def is_compared(record: TrialRecord) -> bool:
    """Return True if the Pareto fronts, in the leaderboard and in the figure, compare a configuration.

    They compare all complete ones, the baseline among them, by accuracy on the validation split and by the
    speed beside other trainings. A confirmation measures both otherwise, but only of its finalists.
    """
    return record.state == "COMPLETE" and record.value is not None


def on_front(records: Sequence[TrialRecord], name: str, sign: int) -> list[bool]:
    """Return which records are on the Pareto front of accuracy and a measurement.

    Args:
        records: Records of `configurations`; those that are not compared are not on it.
        name: Name of the measurement in a result, such as ``n_parameters``; a record without it is not on the
            front.
        sign: 1 if more of the measurement is better, -1 if less is.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return pareto_front(
        [(number(r.value if is_compared(r) else None), sign * number(r.result.get(name))) for r in records]
    )


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which points are on the Pareto front of two quantities, more of each being better.

    A point is on the front if no other is better in one quantity and at least as good in the other; equal
    points are on it together. A point with a NaN or an infinity is not on it, and excludes no other.

    Example:
        >>> pareto_front([(0.89, -61_706), (0.92, -107_369), (0.88, -90_000)])
        [True, True, False]
    """
    front = [False] * len(points)
    known = [i for i, (x, y) in enumerate(points) if math.isfinite(x) and math.isfinite(y)]
    known.sort(key=points.__getitem__, reverse=True)
    # From the largest x downwards; of equal x, the first has the highest y.
    current_x, front_y, highest_y = math.nan, -math.inf, -math.inf
    for i in known:
        x, y = points[i]
        if x != current_x:
            current_x, front_y, highest_y = x, y if y > highest_y else math.nan, max(highest_y, y)
        front[i] = y == front_y
    return front
