"""What is read off many trainings at once: one configuration over its seeds, and the Pareto front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lenet_exp.study.records import TrialRecord

#: What is averaged besides the value, where every seed has it.
_MEANS = ("examples_per_s", "train_s", "test_loss", "test_accuracy")


def over_seeds(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the records with those that differ in nothing but the seed made one.

    Trials stay as they are: a sampler's are each drawn once. Of the others, the one that stands for all has
    the first's key and the mean ``value``; its ``result`` has the means of what was measured, ``n_seeds``,
    ``val_accuracy_sem`` and ``val_delta``, the mean difference to the baseline on the seeds that both have.
    """
    kept: list[TrialRecord] = []
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if record.key.role == "trial":
            kept.append(record)
        else:
            groups.setdefault((record.key.role, record.config), []).append(record)
    baseline = by_seed(
        record for (role, _), group in groups.items() if role == "baseline" for record in group
    )
    return kept + [_one(group, baseline) for group in groups.values()]


def by_seed(records: Iterable[TrialRecord]) -> dict[int, TrialRecord]:
    """Return the completed records by seed."""
    return {record.seed: record for record in records if record.value is not None}


def _one(group: Sequence[TrialRecord], baseline: dict[int, TrialRecord]) -> TrialRecord:
    complete = [record for record in group if record.value is not None]
    if not complete or (len(group) == 1 and len(baseline) < 2):
        return group[0]
    values = [record.value for record in complete if record.value is not None]
    shared = [record for record in complete if record.seed in baseline]
    differences = [(record.value or 0.0) - (baseline[record.seed].value or 0.0) for record in shared]
    result = dict(complete[0].result)
    for name in _MEANS:
        found = [record.result.get(name) for record in complete]
        numbers = [number for number in found if number is not None]
        if len(numbers) == len(found):
            result[name] = statistics.fmean(numbers)
    result |= {
        "n_seeds": len(values),
        "val_accuracy_sem": statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None,
        "val_delta": statistics.fmean(differences) if differences else None,
    }
    return replace(complete[0], value=statistics.fmean(values), result=result)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which points no other beats in one quantity without losing in the other; both are maximised.

    Equal points are on the front together. One with a NaN or an infinity is not on it, and beats none.

    Example:
        >>> pareto_front([(0.89, -61_706), (0.92, -107_369), (0.88, -90_000)])
        [True, True, False]
    """
    front = [False] * len(points)
    known = [i for i, (x, y) in enumerate(points) if math.isfinite(x) and math.isfinite(y)]
    known.sort(key=points.__getitem__, reverse=True)
    at, best, highest = math.nan, -math.inf, -math.inf
    for i in known:
        x, y = points[i]
        if x != at:  # the first of those with the same x has the highest y of them
            at, best, highest = x, y if y > highest else math.nan, max(highest, y)
        front[i] = y == best
    return front
