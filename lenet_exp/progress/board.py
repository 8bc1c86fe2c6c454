"""The board: how a sweep stands, laid out for a width and a height. No colour stands without a word."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lenet_exp.base.errors import printable
from lenet_exp.base.messages import counted
from lenet_exp.progress.estimate import duration_in_words, in_words
from lenet_exp.progress.state import PHASES, Note, Progress, Running

#: Widths from which trainings and the rest stand side by side, and below which words are shortened.
_WIDE, _NARROW = 150, 60
#: Blue and orange are told apart by everybody (Okabe and Ito), and are readable on black and on white.
_ACCENT, _WARNING = "dodger_blue2", "dark_orange3"


def board(progress: Progress, width: int, height: int = 40) -> RenderableType:
    """Return what shows how a sweep stands, at most ``height`` rows high.

    Args:
        progress: State of the sweep.
        width: Columns of the terminal.
        height: Rows that the board may take; what matters least is left out.
    """
    head = [*_head(progress, width)]
    facts = [*_facts(progress, width)]
    notes = [_note(note, is_narrow=width < _NARROW) for note in progress.notes]
    if width >= _WIDE and progress.running:
        rows = max(1, height - len(head))
        left = _running(progress.running, width * 3 // 5, rows)[:rows]
        right = [*facts, *notes[max(0, len(notes) - max(0, rows - len(facts))) :]][:rows]
        beside = Table.grid(padding=(0, 4, 0, 0))
        beside.add_column(width=width * 3 // 5 - 4, no_wrap=True)
        beside.add_column(no_wrap=True)
        beside.add_row(Group(*left), Group(*right))
        return Group(*head, beside) if left or right else Group(*head)
    # From the top: what it is at, then a row for each training, then what is known; notes take what is left.
    left = _running(progress.running, width, max(3, height - len(head) - len(facts)))
    lines = [*head, *left, *facts]
    n_notes = min(len(notes), max(0, height - len(lines)))
    return Group(*lines[:height], *notes[len(notes) - n_notes :])


def _line(*parts: tuple[str, str] | str) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _head(progress: Progress, width: int) -> Iterator[Text]:
    """Yield what the sweep is at, and how far it has come."""
    is_narrow = width < _NARROW
    detail = f": {printable(progress.detail)}" if progress.detail and not is_narrow else ""
    name = printable(progress.experiment) or "sweep"
    phase = PHASES[progress.phase]
    if progress.phase == "confirmation" and progress.n_seeds:
        seeds = progress.seeds_done
        phase = f"confirming {seeds}" if is_narrow else f"confirming, {seeds} done"
    # What it is at is not cut for a long name.
    name = _fit(name, min(len(name), max(8, width - len(phase) - 2)))
    yield _line((name, "bold"), "  ", (phase, _ACCENT), detail)
    if progress.stopping:
        yield _line((f"! {printable(progress.stopping)}", f"bold {_WARNING}"))
    if not progress.n_total:
        return
    known = progress.left is not None and not progress.has_ended
    left = in_words(progress.left) + " left" if progress.left and known else ""
    if not left and progress.running:
        left = "time left: not known yet"
    amount = f"{progress.n_done} of {counted(progress.n_total, progress.unit)}"
    bar_width = max(8, min(40, width - len(amount) - (1 if is_narrow else len(left) + 5)))
    n_full = round(bar_width * min(1.0, progress.n_done / progress.n_total))
    bar = (("━" * n_full, _ACCENT), ("╌" * (bar_width - n_full), "dim"))
    if is_narrow:
        yield _line(*bar, " ", amount)
        if left:
            yield _line(left)
    else:
        yield _line(*bar, "  ", (amount, "bold"), f"  {left}" if left else "")


def _running(running: Sequence[Running], width: int, rows: int) -> list[Text]:
    """Return a row of titles and one for each training, in three rows at least, or their number."""
    if not running:
        return []
    shown = running if len(running) < rows else running[: max(1, rows - 2)]
    is_narrow = width < _NARROW
    # Seeds stand at the end of a label, and are all that tells the trainings of a confirmation apart.
    n_label = min(max(8, *(len(run.label) for run in shown)), width // 2)
    titles = ("epoch", "acc.") if is_narrow else ("epoch", "val_accuracy", "examples/s")
    gap = " " if is_narrow else "  "
    lines = [
        _line((gap.join([_fit("training", n_label), *(title.rjust(len(title)) for title in titles)]), "dim"))
    ]
    if not is_narrow:
        lines[0].append(f"{gap}differs in", "dim")
    for run in shown:
        accuracy = f"{run.accuracy:.4f}" if run.accuracy is not None else "-"
        speed = f"{run.examples_per_s:,.0f}" if run.examples_per_s is not None else "-"
        epochs = f"{run.epoch}/{run.epochs}"
        cells = [epochs.rjust(5), accuracy.rjust(6 if is_narrow else 12)]
        cells += [] if is_narrow else [speed.rjust(10)]
        label = _fit(printable(run.label), n_label)
        lines.append(_line((label, "bold"), gap, gap.join(cells), f"{gap}{printable(run.differs)}"))
    if len(shown) < len(running):
        lines.append(_line((f"and {counted(len(running) - len(shown), 'training')} more", "dim")))
    return lines


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else f"{text[: width - 1]}…"


def _facts(progress: Progress, width: int) -> Iterator[Text]:
    """Yield the incumbent, the counts, and the state of MLflow and of the machine."""
    is_narrow = width < _NARROW

    def title(name: str) -> str:
        return name.ljust(7 if is_narrow else 10)

    if best := progress.incumbent:
        against = "" if is_narrow else " against the baseline"
        delta = "" if best.delta is None else f"  {best.delta:+.4f}{against}"
        if best.label == "baseline":
            leads = "none better" if is_narrow else "nothing better yet"
            delta = f"  {leads}" if progress.counts.complete > 1 else ""
        value = f"{best.val_accuracy:.4f}"
        if not is_narrow:  # a confirmation does not change it
            value = f"{value} in the search" if progress.n_seeds else f"val_accuracy {value}"
        yield _line((title("best"), "dim"), (printable(best.label), "bold"), f"  {value}", (delta, "bold"))
    counts = vars(progress.counts)
    if any(counts.values()):
        # In a narrow terminal, what did not happen need not be said, and what failed is not cut.
        names = sorted(counts, key="failed".__ne__) if is_narrow else counts
        told = [f"{counts[name]} {name}" for name in names if counts[name] or not is_narrow]
        style = _WARNING if progress.counts.failed else ""
        yield _line((title("ended"), "dim"), (", ".join(told), style))
    free = ((progress.memory_bytes, "memory"), (progress.disk_bytes, "disk"))
    machine = ", ".join(f"{what} {n / 1e9:.1f} GB" for n, what in free if n is not None)
    if progress.tracking:
        style = "" if progress.tracking == "live" else f"bold {_WARNING}"
        yield _line((title("MLflow"), "dim"), (printable(progress.tracking), style))
    if machine:
        yield _line((title("free"), "dim"), machine)
    if progress.ran_s >= 1:
        yield _line((title("time"), "dim"), f"{duration_in_words(progress.ran_s)}, pid {progress.pid}")


def _note(note: Note, *, is_narrow: bool) -> Text:
    text = printable(note.text)
    style = f"bold {_WARNING}" if text.startswith(("warning", "error")) else ""
    at = "" if is_narrow else time.strftime("%H:%M:%S  ", time.localtime(note.at))
    return _line((at, "dim"), (text, style))
