"""The time that a sweep still takes, with its spread, from the trainings that have ended or are under way.

The work that is left is a sum of durations like those seen so far. Its spread has three parts: the durations
differ, their mean is known from a few of them only, and what comes may not be like what was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lenet_exp.progress.state import Running, TimeLeft

#: Standard normal quantile of an interval that holds in four cases of five.
_Z = 1.28
#: Relative standard deviation that durations are taken to have before they are seen; it counts as a training.
_PRIOR_SPREAD = 0.4
#: Relative standard deviation of what no duration tells: other load of the machine, a sampler that moves on.
_DRIFT = 0.3
#: After this many trainings a duration counts half: a sampler draws larger or smaller networks as it learns,
#: and a pruner ends more of them.
_HALF_LIFE = 8


@dataclass(frozen=True)
class Duration:
    """How long a training took that has ended.

    Attributes:
        seconds: Seconds from its start to its end.
        epochs: Number of epochs that were trained, at least 1.
        of_epochs: Number of epochs that it would have got without a pruner.
    """

    seconds: float
    epochs: int
    of_epochs: int

    @property
    def full_s(self) -> float:
        """Seconds that all epochs would have taken."""
        return self.seconds * self.of_epochs / self.epochs


@dataclass(frozen=True)
class Waiting:
    """What has not begun yet.

    Attributes:
        trainings: Number of trainings that may be pruned as those before.
        full: Expected number of trainings in a confirmation that follows, each of all epochs.
        full_spread: Standard deviation of ``full``, as a confirmation may choose its number of seeds.
    """

    trainings: int = 0
    full: float = 0.0
    full_spread: float = 0.0

    def __add__(self, other: Waiting) -> Waiting:
        """Return what waits in one phase and in the next."""
        spread = math.hypot(self.full_spread, other.full_spread)
        return Waiting(self.trainings + other.trainings, self.full + other.full, spread)


def time_left(
    ended: Sequence[Duration], running: Sequence[Running], waiting: Waiting, workers: int
) -> TimeLeft | None:
    """Return the time until all trainings are done, or None while there is nothing to go by.

    Args:
        ended: Durations of the trainings that have ended, the newest last.
        running: Trainings that are under way.
        waiting: Trainings that have not begun.
        workers: Number of trainings at once, at least 1.
    """
    begun = [run.trained_s * run.epochs / run.epoch for run in running if run.epoch]
    full = [duration.full_s for duration in ended] + begun
    if not full:
        return None
    weights = [0.5 ** ((len(full) - n) / _HALF_LIFE) for n in range(len(full))]
    full_s = _mean(full, weights)
    # Of what a training would take in full, the pruner leaves this share.
    kept = _mean([d.seconds for d in ended], weights) / _mean(full, weights[: len(ended)]) if ended else 1.0
    taken = [duration.seconds for duration in ended] + [seconds * kept for seconds in begun]
    mean_s = _mean(taken, weights)
    rest = [_rest(run, full_s) * kept for run in running]
    workers_used = max(1, min(workers, len(running) + waiting.trainings + math.ceil(waiting.full)))
    work_s = sum(rest) + waiting.trainings * mean_s + waiting.full * full_s
    # While the last trainings run, the other workers have nothing to do; so they do before a confirmation.
    ends = (mean_s if waiting.trainings or running else 0.0) + (full_s if waiting.full else 0.0)
    middle_s = work_s / workers_used + ends * (workers_used - 1) / (2 * workers_used)
    middle_s = max([middle_s, *rest])
    variance = (
        _of_sum(taken, weights, waiting.trainings)
        + _of_sum(full, weights, waiting.full)
        + (waiting.full_spread * full_s) ** 2
        + sum((_PRIOR_SPREAD * seconds) ** 2 for seconds in rest)
        + (ends / 3) ** 2
    ) / workers_used**2
    if middle_s <= 0:
        return TimeLeft(0.0, 0.0, 0.0)
    # A time is never below zero, so the interval is symmetric in the logarithm.
    spread = math.sqrt(math.log1p(variance / middle_s**2 + _DRIFT**2))
    return TimeLeft(middle_s * math.exp(-_Z * spread), middle_s, middle_s * math.exp(_Z * spread))


def _rest(run: Running, full_s: float) -> float:
    """Return the seconds that a training still takes if it is not pruned."""
    if not run.epoch:
        return max(0.1 * full_s, full_s - run.ran_s)
    epoch_s = run.trained_s / run.epoch
    # Between two epochs the rest shrinks too, but to no less than a part of the epoch that is due.
    left = run.epochs - run.epoch
    return max(epoch_s * (left - 0.9), epoch_s * left - (run.ran_s - run.trained_s)) if left else 0.0


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return a weighted mean; values beyond the weights, or weights beyond the values, do not count."""
    pairs = list(zip(values, weights, strict=False))
    return sum(value * weight for value, weight in pairs) / sum(weight for _, weight in pairs)


def _of_sum(seen: Sequence[float], weights: Sequence[float], n: float) -> float:
    """Return the variance of the sum of ``n`` more durations, whose mean is itself only estimated."""
    mean_s = _mean(seen, weights)
    # The spread that is taken for granted counts as one more duration.
    deviations = [(seconds - mean_s) ** 2 for seconds in seen] + [(_PRIOR_SPREAD * mean_s) ** 2]
    n_effective = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    return _mean(deviations, [*weights, 1.0]) * (n + n**2 / n_effective)


def in_words(left: TimeLeft) -> str:
    """Return a time left in words, with its interval.

    Example:
        >>> in_words(TimeLeft(230, 350, 540)), in_words(TimeLeft(4000, 6000, 9000))
        ('about 6 min (4 to 9)', 'about 1.7 h (1.1 to 2.5)')
    """
    unit_s, unit = _unit(left.middle_s)
    low, middle, high = (_number(s / unit_s, unit) for s in (left.low_s, left.middle_s, left.high_s))
    return f"about {middle} {unit}" + (f" ({low} to {high})" if low != high else "")


def _unit(seconds: float) -> tuple[float, str]:
    return (1, "s") if seconds < 90 else (60, "min") if seconds < 90 * 60 else (3600, "h")


def _number(value: float, unit: str) -> str:
    return f"{value:.1f}" if unit == "h" and value < 10 else f"{max(1.0, value):.0f}"


def duration_in_words(seconds: float) -> str:
    """Return a duration in at most two units.

    Example:
        >>> duration_in_words(7), duration_in_words(130), duration_in_words(4000)
        ('7 s', '2 min 10 s', '1 h 6 min')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
