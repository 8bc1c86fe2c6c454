"""The Pareto front of two quantities."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
