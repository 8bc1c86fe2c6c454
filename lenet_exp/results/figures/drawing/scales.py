"""Where numbers are placed and what is written there: parallel axes, ticks, colours between colours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from lenet_exp.results.figures.chart import Axis, Value

#: Place on a parallel axis, whose values are in [0, 1], of what does not use the dimension.
UNUSED = -0.2


class ParallelAxis:
    """A dimension of parallel coordinates: places of its values are in [0, 1], that of None is `UNUSED`."""

    def __init__(self, axis: Axis, column: Sequence[Value | None]) -> None:
        """Fit the axis to its values.

        Args:
            axis: Dimension; its ``low`` and ``high`` are ignored.
            column: Value of each line, at least one of which is not None.
        """
        self._axis, self._has_unused = axis, None in column
        self._values = sorted({value for value in column if value is not None}, key=self._number)
        low, high = self._number(self._values[0]), self._number(self._values[-1])
        self._low, self._span = (low, high - low) if high > low else (low - 1, 2.0)

    def _number(self, value: Value) -> float:
        if isinstance(value, str):
            return float(list(self._axis.categories).index(value))
        return math.log10(value) if self._axis.scale == "log" else value

    def share(self, value: Value | None) -> float:
        """Return the place of a value."""
        return UNUSED if value is None else (self._number(value) - self._low) / self._span

    def ticks(self) -> list[tuple[float, Value]]:
        """Return where ticks stand, and their values: all of a few, or else both ends and the middle."""
        values: list[Value] = self._values
        if not isinstance(values[0], str):
            middle = self._low + self._span / 2
            is_few = len(values) <= 4 and np.diff([self.share(v) for v in values]).min(initial=1) > 0.2
            inner = 10**middle if self._axis.scale == "log" else middle
            inner = round(inner) if all(isinstance(value, int) for value in values) else inner
            values = values if is_few else [values[0], inner, values[-1]]
        unused: list[tuple[float, Value]] = [(UNUSED, "unused")]
        return unused * self._has_unused + [(self.share(v), v) for v in values]


def between(colours: Sequence[str], share: float) -> str:
    """Return the colour at a place between others.

    Args:
        colours: Colours from the smallest number to the largest, as ``#rrggbb``.
        share: Part of the way from the first to the last, in [0, 1].
    """
    rgb = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    at = share * (len(colours) - 1)
    mixed = [round(float(np.interp(at, range(len(colours)), channel))) for channel in rgb.T]
    return "#" + "".join(f"{part:02x}" for part in mixed)


def log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: its decades, with more between them where they are few.

    Args:
        low: Logarithm to the base 10 of the axis's start.
        high: Logarithm to the base 10 of its end.
    """
    span = high - low
    steps = (1,) if span > 3 else (1, 3) if span > 1.3 else (1, 2, 5) if span > 0.4 else range(1, 10)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Return names of at most so many characters; a longer one loses what all begin with, then its middle.

    Args:
        names: Names that stand beside each other.
        most: Largest number of characters of each.

    Example:
        >>> shortened(["convolutions with 3", "convolutions with 5"], 10)
        ['…3', '…5']
    """
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    n_same = len(list(alike)) if len(names) > 1 else 0
    short = []
    for name in names:
        text = f"…{name[n_same:]}" if len(name) > most and n_same > 1 else name
        half = most // 2
        short.append(text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}")
    return short
