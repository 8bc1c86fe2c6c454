"""The table that ``tests/gpu.py`` ends with, and the steps that fill it, each within its time.

Nothing here needs torch.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

#: Seconds between two rings of an alarm that was not obeyed.
_RING_AGAIN_S = 10.0


class OutOfTimeError(BaseException):
    """A step's time is over; no ``except Exception`` on the way stops it."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        quantity: What was measured, or which check was run.
        value: With its unit; ``held`` or ``failed: ...`` for a check; or ``not measured: ...``.
        how: What is in it, and what is not.
    """

    quantity: str
    value: str
    how: str

    def __str__(self) -> str:
        """Return it as Markdown."""
        cells = (" ".join(cell.split()).replace("|", r"\|") for cell in (self.quantity, self.value, self.how))
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Step:
    """A check, or something to measure.

    Attributes:
        name: The quantity of its row where it gives none of its own.
        run: Gives the rows as they arise.
        how: The last cell of that row.
        wanting: Something that it needs and that is not here, in which case it is not run; else empty.
        least_s: Seconds that must be left for it to be begun.
        most_s: Seconds after which it is cut off.
        check: True if not everything held where there was no time for it; what is measured may be left out.
    """

    name: str
    run: Callable[[], Generator[Row]]
    how: str = ""
    wanting: str = ""
    least_s: float = 0.0
    most_s: float = 60.0
    check: bool = False


@dataclass
class Report:
    """What was found so far; each line is printed as it arises.

    Attributes:
        title: The machine.
        metadata: What it ran with, by name.
        file: Where the table is written too, after each row, so that it is there if the rest never comes.
        rows: The table.
        began: Moment at which the clock of the lines was started, as `time.monotonic` has it.
    """

    title: str
    metadata: Mapping[str, str]
    file: Path | None = None
    rows: list[Row] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print a line with the seconds so far."""
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)  # noqa: T201

    def add(self, row: Row) -> None:
        """Add a row to the table, and print it."""
        self.rows.append(row)
        self.say(str(row))
        if self.file is not None:
            self.file.write_text(self.markdown())

    def markdown(self) -> str:
        """Return the heading and the table."""
        heading = [f"# {self.title}", "", *(f"- {name}: {value}" for name, value in self.metadata.items())]
        table = ["| quantity | value | how |", "|---|---|---|", *map(str, self.rows)]
        return "\n".join([*heading, "", *table, ""])


def run_steps(steps: Sequence[Step], report: Report, deadline: float) -> bool:
    """Run the steps one after the other, and return whether all held.

    A step that raises does not hold, its traceback goes to stderr, and the others are still run. What is not
    measured for want of something, or of time, holds; a check for which there was no time does not.

    Args:
        steps: In the order in which they are run.
        report: Takes their rows.
        deadline: Moment by which the last of them must have ended, as `time.monotonic` has it.
    """
    held = True
    for step in steps:
        if step.wanting:
            report.add(Row(step.name, f"not measured: {step.wanting}", step.how))
            continue
        left = deadline - time.monotonic()
        report.say(f"{step.name} ...")
        try:
            if left < step.least_s:
                raise OutOfTimeError
            with closing(step.run()) as rows, limited(min(left, step.most_s)):
                for row in rows:
                    report.add(row)
        except OutOfTimeError:
            held = held and not step.check
            spent = "" if left < step.most_s else f" after {step.most_s:.0f} s"
            report.add(Row(step.name, f"not measured: out of time{spent}", step.how))
        except Exception as error:
            held = False
            traceback.print_exc()
            reason_line = (str(error).strip().splitlines() or [""])[0]
            report.add(Row(step.name, f"failed: {type(error).__name__}: {reason_line}", step.how))
    return held


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End what is done within, in the main thread, after some seconds.

    Raises:
        OutOfTimeError: In the midst of it.
    """

    def ring(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    # More than once, as an exception that comes in a destructor is dropped.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), _RING_AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def spread(values: Sequence[float], style: str = ",.0f") -> str:
    """Return the median of some values, and the smallest and the largest.

    Args:
        values: At least one.
        style: The format of a value.

    Example:
        >>> spread([1200.0, 1000.0, 1300.0])
        '1,200 (1,000 .. 1,300)'
    """
    return f"{median(values):{style}} ({min(values):{style}} .. {max(values):{style}})"
