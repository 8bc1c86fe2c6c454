"""Write the tables of experiments/STATISTICS.md: ``python -m tests.labs.simulated_tables --sweeps 20000``.

It fails if the level is not kept, which is if in any cell the lower 99 % bound of the rate of false *better*
is above it.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

from lenet_exp.results.verdicts.seeds import MOST_SEEDS
from tests.labs.documents import STATISTICS
from tests.labs.noise import NOISES
from tests.labs.simulated_questions import IMAGE_PARTS, Settled, image_coverage, settled
from tests.labs.simulation import (
    EFFECTS,
    FIRST_STAGE,
    LEVEL,
    MOST,
    PRECISION,
    Auto,
    Cell,
    auto,
    cell,
    lower_bound,
)
from tests.labs.stubborn import MOST as MOST_READ
from tests.labs.stubborn import READINGS, stubborn

SWEEPS = 20_000
FINALISTS = (1, 3, 5)
#: Seeds of the first look; None for `auto`.
SEEDS = (2, 3, 5, 10, 20, None)
FIRST_STAGES = (3, 5, 8, 10)
SETTLED_AFTER = (3, 5, 10)

#: Seeds of the first reading of those who read again until something is better; their finalists, and how many
#: are added in each later reading.
STUBBORN_SEEDS = (2, 3, 5, 10)
STUBBORN_CASES = {"1": (1, 0), "3": (3, 0), "3, and a new one each time": (3, 1)}
Stubborn = tuple[int, int, int]
STUBBORN: tuple[Stubborn, ...] = tuple((n, *case) for n in STUBBORN_SEEDS for case in STUBBORN_CASES.values())

Key = tuple[str, int, int | None]
#: This one has its cells on few seeds alone, and is told of in a sentence.
OFTEN = "collapsing, 1 in 5"
IN_TABLES = [noise for noise in NOISES if noise != OFTEN]
KEYS: tuple[Key, ...] = (*product(IN_TABLES, FINALISTS, SEEDS), *product([OFTEN], FINALISTS, [2, 3]))

#: Headings of the columns of seeds.
COLUMNS = [f"{seeds} seeds" if seeds == SEEDS[0] else f"{seeds}" if seeds else "`auto`" for seeds in SEEDS]

BEGIN, END = "<!-- Made by nox -s statistics, from here: -->", "<!-- to here. -->"


def share(value: float, digits: int = 3) -> str:
    """Return a share as the tables have it, without its leading zero."""
    return f"{value:.{digits}f}".removeprefix("0")


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    Args:
        heading: Names of the columns.
        rows: Its cells, row by row.
    """
    rule = ["---"] * len(heading)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *rows))


def section(heading: str, *parts: str) -> str:
    """Return a section of the document.

    Args:
        heading: Its heading.
        parts: Its tables and paragraphs; the latter are broken into lines.
    """
    broken = (part if part.startswith("|") else textwrap.fill(part, 120) for part in parts)
    return "\n\n".join([f"### {heading}", *broken])


def by_noise(texts: dict[Key, str]) -> str:
    """Return the table with a row for each noise and number of finalists, and a column for each of seeds."""
    rows = (
        [noise if n == FINALISTS[0] else "", str(n), *(texts[noise, n, seeds] for seeds in SEEDS)]
        for noise, n in product(IN_TABLES, FINALISTS)
    )
    return table(["noise", "finalists", *COLUMNS], rows)


def false_text(result: Cell) -> str:
    """Return a cell of the first table: false *better* by each look, and any false verdict by the last."""
    looks = " ".join(share(count / result.sweeps) for count in result.false_better)
    return f"{looks} ({share(result.false_any[-1] / result.sweeps)})"


def power_text(result: Cell) -> str:
    """Return a cell of the second table: the power of the first look for each true difference."""
    return " ".join(share(value, 2) for value in result.power[1:, 0])


def coverage_text(result: Cell) -> str:
    """Return a cell of the third table: coverage at the first look, and the lowest of the later ones."""
    return f"{share(result.coverage[0, 0])} {share(result.coverage[:, 1:].min())}"


def violations(false_better: dict[str, int], sweeps: int) -> list[str]:
    """Return a line for each cell in which the level is not kept.

    Args:
        false_better: Number of sweeps with a false *better*, by the name of the cell.
        sweeps: Number of sweeps of each.
    """
    bounds = {cell: lower_bound(count, sweeps) for cell, count in false_better.items()}
    return [
        f"{cell}: false better in more than {bound:.4f} of sweeps, level {LEVEL}"
        for cell, bound in bounds.items()
        if bound > LEVEL
    ]


def name(key: Key) -> str:
    """Return what a cell is called in a sentence."""
    noise, finalists, seeds = key
    start = f"{seeds} seeds" if seeds else "auto"
    return f"{noise}, {finalists} finalist{'s' if finalists > 1 else ''}, {start}"


def level_section(cells: dict[Key, Cell]) -> str:
    """Return the table without true differences."""
    sweeps = next(iter(cells.values())).sweeps
    key, worst = max(cells.items(), key=lambda item: item[1].false_better[-1])
    bound = lower_bound(worst.false_better[-1], sweeps)
    shown = [each for (noise, *_), each in cells.items() if noise != OFTEN]
    most = max(each.false_better[-1] for each in shown) / sweeps
    wrong = max(each.false_any[-1] for each in shown) / sweeps
    often = [max(cells[OFTEN, n, seeds].false_any[-1] for n in FINALISTS) / sweeps for seeds in (2, 3)]
    often_better = max(cells[OFTEN, n, 2].false_better[-1] for n in FINALISTS) / sweeps
    return section(
        "Where nothing differs",
        f"Share of {sweeps:,} sweeps in which a finalist had been called *better* by the first, "
        "second, third and fourth reading, each with as many seeds more; in brackets any false "
        f"verdict, *better* or *worse*, by the fourth. `auto`: first stage of {FIRST_STAGE} seeds, "
        f"`precision` of {PRECISION:g} standard deviation of a difference, `max_seeds` {MOST}. In the "
        "last two rows the finalists' deviation is three times the baseline's, and a third of it.",
        by_noise({key: false_text(c) for key, c in cells.items() if key[0] != OFTEN}),
        f"To see: no rate of false *better* is above {share(most)}, none of any false verdict above "
        f"{share(wrong)}; the level is {LEVEL:g}. If one training in five collapses (in the table: one "
        f"in ten), any false verdict rises to {share(often[0])} on two seeds (*better* "
        f"{share(often_better)}); on three it is {share(often[1])}. The largest lower 99 % bound of a "
        f"rate of false *better* (Clopper and Pearson) is {share(bound)} ({name(key)}).",
    )


def stubborn_section(counts: dict[Stubborn, tuple[int, int]], sweeps: int) -> str:
    """Return the table of those who read again until a finalist is better.

    Args:
        counts: Number of sweeps with a false *better*, and with any false verdict.
        sweeps: Number of sweeps of each.
    """
    rows = [
        [words, *(" ".join(share(count / sweeps) for count in counts[n, *case]) for n in STUBBORN_SEEDS)]
        for words, case in STUBBORN_CASES.items()
    ]
    return section(
        "Who reads until something is better",
        f"Nothing differs, the noise is normal, and somebody reads up to {READINGS} times until a finalist "
        f"is better, each time with the number of seeds (up to {MOST_READ}) that is likeliest to settle one. "
        "Share of sweeps with a false *better*, and with any false verdict, by the seeds of the first "
        "reading:",
        table(["finalists", *(str(n) for n in STUBBORN_SEEDS)], rows),
        f"To see: *better* keeps the level of {LEVEL:g} even so. On two seeds any false verdict does not.",
    )


def power_section(cells: dict[Key, Cell]) -> str:
    """Return the tables with true differences."""
    looks = table(
        ["finalists", "difference", *COLUMNS[:-1]],
        (
            [
                str(n) if row == 1 else "",
                f"{EFFECTS[row]:g}",
                *(" ".join(share(p, 2) for p in cells["normal", n, s].power[row]) for s in SEEDS[:-1]),
            ]
            for n, row in product(FINALISTS, range(1, len(EFFECTS)))
        ),
    )
    same = cells["normal", 3, 5].power[EFFECTS.index(1.0)]
    return section(
        "Where finalists are better",
        "Share of finalists called *better* by the first reading, if all are truly better by 0.5, 1 "
        "and 2 standard deviations of a paired difference:",
        by_noise({key: power_text(c) for key, c in cells.items() if key[0] != OFTEN}),
        "To see: with three finalists or more, five seeds find two deviations and ten find one; half "
        "a deviation takes more than twenty.",
        "Share called *better* at the first, second, third and fourth reading (normal noise):",
        looks,
        "To see: looking again helps in spite of its small level. With three finalists and 5 seeds, a "
        f"difference of one deviation is found with a chance of {share(same[0], 2)}, and after 5 more "
        f"with {share(same[1], 2)}.",
    )


def coverage_section(cells: dict[Key, Cell]) -> str:
    """Return the table of the intervals' coverage."""
    lowest = min(each.coverage.min() for key, each in cells.items() if key[0] != OFTEN)
    return section(
        "Whether the intervals hold",
        "Share of sweeps in which a reading's intervals contain the true differences of all finalists: in "
        "the first reading, and the lowest share in the second to fourth, for true differences of 0, 0.5, 1 "
        "and 2 deviations.",
        by_noise({key: coverage_text(c) for key, c in cells.items() if key[0] != OFTEN}),
        f"To see: they hold in at least {share(lowest)}. They are meant for one reading, not for all "
        "readings together.",
    )


def auto_row(first_stage: int, result: Auto) -> list[str]:
    """Return a row of the table of `auto`, without the number of finalists.

    Args:
        first_stage: Seeds of the first stage.
        result: What came of it.
    """
    powers = " ".join(share(value, 2) for value in result.power)
    numbers = f"{result.seeds:.1f}", f"{result.trainings:.1f}", share(result.narrow, 2)
    return [str(first_stage), *numbers, powers]


def auto_section(sweeps: int) -> str:
    """Return the table of the first stage's size.

    Args:
        sweeps: Number of sweeps a row.
    """
    rows = []
    for finalists, first in product(FINALISTS, FIRST_STAGES):
        row = auto_row(first, auto(first, finalists, PRECISION, sweeps))
        rows.append([str(finalists) if first == FIRST_STAGES[0] else "", *row])
    return section(
        "What `auto` costs",
        f"Normal noise, `precision` of {PRECISION:g} standard deviation of a difference, `max_seeds` "
        "40. *Seeds* is the mean number in the reading, *trainings* adds the first stage, *narrow* is "
        "the share of sweeps in which all intervals are as narrow as asked for; power as above.",
        table(["finalists", "first stage", "seeds", "trainings", "narrow", "power"], rows),
        "To see: a first stage of 3 or 5 knows the spread so badly that with several finalists the "
        "second becomes long; 8 or 10 then save more than they cost.",
    )


def settled_row(effect: float, result: Settled) -> list[str]:
    """Return a row of the table of ties, without the number of seeds so far.

    Args:
        effect: True difference, in standard deviations.
        result: What became of the ties.
    """
    chances = share(result.settled_at_low, 2), share(result.settled_at_high, 2), share(result.unnamed, 2)
    return [f"{effect:g}", str(result.low), str(result.high), *chances]


def settled_section(sweeps: int) -> str:
    """Return the table of the seeds that settle a tie.

    Args:
        sweeps: Number of sweeps a row.
    """
    rows, lowest = [], [1.0, 1.0]
    for n, effect in product(SETTLED_AFTER, EFFECTS[1:]):
        result = settled(n, effect, 3, sweeps)
        lowest = [min(lowest[0], result.settled_at_low), min(lowest[1], result.settled_at_high)]
        rows.append([str(n) if effect == EFFECTS[1] else "", *settled_row(effect, result)])
    heading = ["tie on", "difference", "low", "high", "settled at low", "at high", f"above {MOST_SEEDS}"]
    return section(
        "Whether the seeds named settle a tie",
        "Three undecided finalists, normal noise, a true difference of the size asked about (in "
        "deviations). *Low* and *high* are the medians of the two numbers named; then the shares of "
        f"ties that so many seeds settle, and the share for which *high* is above {MOST_SEEDS}, and "
        f"{MOST_SEEDS} are trained.",
        table(heading, rows),
        f"To see: the larger number settles at least {share(lowest[1], 2)} of the ties, the smaller at least "
        f"{share(lowest[0], 2)}.",
    )


def images_section(sweeps: int) -> str:
    """Return the table of the two intervals' coverage.

    Args:
        sweeps: Number of sweeps a cell.
    """
    rows = []
    for n in SETTLED_AFTER:
        pairs = [image_coverage(n, ratio, sweeps) for ratio in IMAGE_PARTS.values()]
        rows.append([str(n), *(f"{share(others)} {share(these)}" for others, these in pairs)])
    heading = ["seeds", *(f"images' part: {words}" for words in IMAGE_PARTS)]
    return section(
        "Whether the interval for other images holds",
        f"Share of {sweeps:,} sweeps in which the interval for other seeds and other images, and then "
        "the one for other seeds on these images, contains the difference on all images there are "
        f"(one finalist, level {LEVEL:g}). The images' part of the deviation is compared with the "
        "seeds'.",
        table(heading, rows),
        "To see: the first holds whatever the images' part; the second answers another question.",
    )


def document(cells: dict[Key, Cell], counts: dict[Stubborn, tuple[int, int]], sweeps: int) -> str:
    """Return all tables.

    Args:
        cells: The simulated cells, all of `KEYS`.
        counts: What came of all of `STUBBORN`.
        sweeps: Number of sweeps for the tables beside them.
    """
    parts = [
        level_section(cells),
        stubborn_section(counts, sweeps),
        power_section(cells),
        coverage_section(cells),
    ]
    parts += [auto_section(sweeps), settled_section(sweeps), images_section(sweeps)]
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, write the tables into the document, and return 1 if the level is not kept."""
    parser = argparse.ArgumentParser(description="simulate verdicts, and write the tables of STATISTICS.md")
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="sweeps a cell (default: 20000)")
    sweeps = parser.parse_args(arguments).sweeps
    with ProcessPoolExecutor(2) as pool:
        read_again = pool.map(stubborn, *zip(*STUBBORN, strict=True), [sweeps] * len(STUBBORN))
        results = pool.map(cell, *zip(*KEYS, strict=True), [sweeps] * len(KEYS))
        counts = dict(zip(STUBBORN, read_again, strict=True))
        cells = dict(zip(KEYS, results, strict=True))
    before, _, rest = STATISTICS.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    STATISTICS.write_text(f"{before}{BEGIN}\n\n{document(cells, counts, sweeps)}\n\n{END}{after}")
    false_better = {name(key): each.false_better[-1] for key, each in cells.items()}
    false_better |= {f"read until better, {case}": better for case, (better, _) in counts.items()}
    lines = violations(false_better, sweeps)
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
