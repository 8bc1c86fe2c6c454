"""The figures of a search in time: its history, what its workers did when, and how fast they trained."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from lenet_exp.base.errors import mask_url
from lenet_exp.base.messages import counted
from lenet_exp.base.records import without_seed
from lenet_exp.results.figures.chart import (
    BASELINE,
    COLOURS,
    FAINT,
    TRIAL,
    Axis,
    Bars,
    Chart,
    Line,
    Mark,
    Panel,
    Points,
    Reference,
    Symbol,
    Value,
)
from lenet_exp.results.figures.drawing.elements import TICK_CHARACTERS
from lenet_exp.results.figures.selection import (
    baseline_accuracy,
    best_of,
    complete,
    floor,
    incumbent,
    last_accuracy,
    measured,
    summary,
    tried,
    varied,
)
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.events import RunLog

#: Sentence of a caption where points are drawn at the lower edge.
CLIPPED = "Triangles stand for values below the axis."
#: Height of a worker's or listed run's row, in pixels.
_ROW = 26
#: Largest number of trials whose hyper-parameters are shown when they are pointed at.
MAX_DESCRIBED = 300
#: Name in the legend, colour and symbol of a trial, by its state.
_STATES: Mapping[str, tuple[str, str, Symbol]] = {
    "FAIL": ("failed, at its last epoch", FAINT, "cross"),
    "PRUNED": ("pruned, at its last epoch", FAINT, "circle"),
    "COMPLETE": ("complete", TRIAL, "circle"),
}


def history(results: ExperimentResults) -> Chart | None:
    """Return the val_accuracy of each trial or listed run, with the incumbent and the baseline."""
    records = measured(results.records)
    if not records:
        return None
    low = floor([last_accuracy(r) for r in records])
    names, marks = _named(records), list[Mark]()
    for state, (name, colour, symbol) in _STATES.items():
        shown = [r for r in records if r.state == state]
        below = [last_accuracy(r) < low for r in shown]
        symbols: list[Symbol] = ["triangle-down" if is_below else symbol for is_below in below]
        y = [max(last_accuracy(r), low) for r in shown]
        hover = [summary(r, names) for r in shown]
        size = 8 if state == "COMPLETE" else 6
        marks.append(Points(*_placed(shown, y), name, colour, symbols, hover=hover, size=size))
    best_so_far = incumbent(records)
    if best_so_far and not _is_list(records):
        x, y = map(list, zip(*best_so_far, strict=True))
        marks.append(
            Line([*x, records[-1].trial], [max(v, low) for v in (*y, y[-1])], "best so far", is_step=True)
        )
    reference = baseline_accuracy(results.records)
    if reference is not None:
        marks.append(Reference(max(reference, low), "x" if _is_list(records) else "y"))
    sentences = [_best(results.records), *_not_shown(results.records)]
    if any(last_accuracy(r) < low for r in records):
        sentences.append(CLIPPED)
    title = "Accuracy of each run" if _is_list(records) else "Accuracy of each trial, in the order drawn"
    return Chart(
        "history",
        title,
        " ".join(sentences),
        [_panel(records, marks, Axis("val_accuracy (share of images)"))],
        1,
    )


def _named(records: Sequence[TrialRecord]) -> list[str]:
    """Return the hyper-parameters to name where a trial is pointed at: of many trials none."""
    return varied(records) if len(records) <= MAX_DESCRIBED else []


def _is_list(records: Sequence[TrialRecord]) -> bool:
    return bool(records) and records[0].key.role == "run"


def _placed(
    records: Sequence[TrialRecord], values: Sequence[float]
) -> tuple[Sequence[Value], Sequence[Value]]:
    """Return x and y: trials along x by their numbers, listed runs along y, where there is room for names."""
    if _is_list(records):
        return values, [without_seed(r.label) for r in records]
    return [float(r.trial) for r in records], values


def _panel(records: Sequence[TrialRecord], marks: Sequence[Mark], axis: Axis) -> Panel:
    if not _is_list(records):
        return Panel(marks, Axis("trial", is_integer=True), axis)
    names = list(dict.fromkeys(without_seed(r.label) for r in records))
    row = _ROW if max(map(len, names)) <= TICK_CHARACTERS else 1.6 * _ROW  # long names take two lines
    return Panel(marks, axis, Axis("", "category", names), height=round(80 + row * len(names)))


def _best(records: Sequence[TrialRecord]) -> str:
    """Return a sentence on the best trial or listed run, and since when none is better."""
    done, best, baseline = complete(records), best_of(records), baseline_accuracy(records)
    kind = "run" if _is_list(tried(records)) else "trial"
    if best is None or best.value is None:
        return f"None of {counted(len(tried(records)), kind)} is complete."
    text = f"The best of {counted(len(done), f'complete {kind}')} is {best.label} with {best.value:.4f}"
    if len(done) > 1 and all(r.value == best.value for r in done):
        text = f"All {len(done):,} complete {kind}s have {best.value:.4f}"
    if baseline is not None:
        text += f", {best.value - baseline:+.4f} against the baseline's {baseline:.4f}"
    later = sum(r.trial > best.trial for r in tried(records))
    if kind == "run":
        return f"{text}."
    if not later:
        return f"{text}; it is the last, so more trials may be better still."
    none = "the later trial is not" if later == 1 else f"none of the {later:,} later trials is"
    return f"{text}; {none} better."


def _not_shown(records: Sequence[TrialRecord]) -> list[str]:
    """Return a sentence on the trials that have no accuracy, if there are any."""
    ours = [r for r in records if r.key.role in ("trial", "run") and not r.superseded]
    shown = {r.key for r in measured(records)}
    missing = [r.kind for r in ours if r.key not in shown]
    counts = [f"{missing.count(kind)} {kind}" for kind in dict.fromkeys(missing)]
    return [f"Without an accuracy, so not shown: {', '.join(counts)}."] if counts else []


# Time.

#: Name in the legend and colour of an attempt, by how it ended; a fixed training has a name of its own.
_ENDS = {
    "complete": TRIAL,
    "pruned": "#56b4e9",
    "failed": "#cc79a7",
    "baseline": BASELINE,
    "confirmation": "#009e73",
    "not ended": FAINT,
}


def timeline(results: ExperimentResults) -> Chart | None:
    """Return what each worker did when: a bar for each attempt, from its start to its end in the spool."""
    spans = sorted((log.start_ms / 1000, _end_s(log), log) for log in results.run_logs.values() if _ran(log))
    if not spans:
        return None
    times = [(start, end) for start, end, _ in spans]
    first, pauses = times[0][0], _pauses(times)
    length_s = max(end for _, end in times) - first - sum(end - start for start, end in pauses)
    unit, unit_s = _unit(length_s)
    lanes = _lanes(times)
    workers = [f"worker {number + 1}" for number in range(max(lanes) + 1)]

    def place(time: float) -> float:
        """Return the position of a time along the axis, on which a pause is a hundredth of the whole long."""
        cut = sum(min(time, end) - start - 0.01 * length_s for start, end in pauses if start < time)
        return (time - first - cut) / unit_s

    marks: list[Mark] = []
    for name, colour in _ENDS.items():
        bars = [
            (place(start), place(end), workers[lane], _attempt_text(log, end - start))
            for (start, end, log), lane in zip(spans, lanes, strict=True)
            if _end_name(log) == name
        ]
        start, end, y, hover = map(list, zip(*bars, strict=True)) if bars else ([], [], [], [])
        marks.append(Bars(start, end, y, name, colour, hover))
    for pause in pauses:
        marks.append(Reference((place(pause[0]) + place(pause[1])) / 2, "x", "pause, cut out", FAINT))
    caption = _busy(times, len(workers), length_s, pauses)
    title = f"time {'without pauses' if pauses else 'since the first start'}, {unit}"
    panel = Panel(marks, Axis(title, low=0), Axis("", "category", workers), height=70 + _ROW * len(workers))
    return Chart("timeline", "What each worker did when", caption, [panel], columns=1)


def _pauses(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return when nothing ran for so long that it would squeeze the rest: between a sweep and the next."""
    gaps, latest = [], spans[0][0]
    for start, end in spans:
        gaps.append((latest, start))
        latest = max(latest, end)
    length_s = latest - spans[0][0] - sum(end - start for start, end in gaps if end > start)
    return [(start, end) for start, end in gaps if end - start > max(60, 0.1 * length_s)]


def _ran(log: RunLog) -> bool:
    """Return whether an attempt was trained, and its log has two times at least."""
    is_copy = "lenet_exp.duplicate_of" in log.metadata.get("tags", {})
    return not is_copy and bool(log.epochs or (log.end and log.end.state == "FAIL"))


def _end_s(log: RunLog) -> float:
    """Return when an attempt ended, or else its last epoch, in seconds since 1970."""
    return max(log.start_ms, log.end.time_ms if log.end else max(log.epoch_ms, default=0)) / 1000


def _end_name(log: RunLog) -> str:
    if log.end is None:
        return "not ended"
    if log.end.state == "FAIL":
        return "failed"
    if log.key.role in ("baseline", "confirm"):
        return {"baseline": "baseline", "confirm": "confirmation"}[log.key.role]
    return "complete" if log.end.state == "COMPLETE" else "pruned"


def _attempt_text(log: RunLog, duration_s: float) -> str:
    reason = [mask_url(log.end.reason)[:200]] if log.end and log.end.reason else []
    label = log.metadata.get("label", log.key.stem)
    return "\n".join([f"{label}: {counted(len(log.epochs), 'epoch')} in {duration_s:.1f} s", *reason])


def _lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return a row for each span, given by their starts, so that those in a row do not overlap."""
    ends: list[float] = []
    lanes = []
    for start, end in spans:
        # A worker gets its next attempt in the moment that the last one ends, and clocks have milliseconds.
        free = (lane for lane, busy_until in enumerate(ends) if busy_until <= start + 0.002)
        lane = next(free, len(ends))
        ends[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes


def _busy(
    spans: Sequence[tuple[float, float]],
    n_workers: int,
    length_s: float,
    pauses: Sequence[tuple[float, float]],
) -> str:
    """Return sentences on how busy the workers were, and on the times in which nothing ran."""
    share = sum(end - start for start, end in spans) / (n_workers * length_s or 1)
    text = f"{counted(n_workers, 'worker')} trained for {share:.2f} of the {_duration(length_s)}"
    text += f", in {counted(len(spans), 'attempt')}; where there is no bar, a worker was idle."
    if pauses:
        total = _duration(sum(end - start for start, end in pauses))
        text += f" Cut out: {counted(len(pauses), 'pause')} in which nothing ran, {total} in all."
    return text


def _unit(seconds: float) -> tuple[str, int]:
    return next((unit for unit in (("h", 3600), ("min", 60)) if seconds > 3 * unit[1]), ("s", 1))


def _duration(seconds: float) -> str:
    unit, unit_s = _unit(seconds)
    return f"{seconds / unit_s:.1f} {unit}"


# Speed.


def throughput(results: ExperimentResults) -> Chart | None:
    """Return the examples per second of each trial or listed run, by how many trained beside it."""
    records = [
        r for r in tried(results.records) if r.result.get("examples_per_s") and "duplicate_of" not in r.result
    ]
    if not records:
        return None
    names, marks, sentences = _named(records), list[Mark](), list[str]()
    kind = "run" if _is_list(records) else "trial"
    groups: dict[int, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(int(record.result.get("co_runners", 0)), []).append(record)
    for number, (n_beside, group) in enumerate(sorted(groups.items())):
        speeds = [float(r.result["examples_per_s"]) for r in group]
        name = f"with {n_beside} beside" if n_beside else "alone"
        hover = [
            f"{speed:,.0f} examples/s\n{summary(r, names)}" for speed, r in zip(speeds, group, strict=True)
        ]
        colour = COLOURS[number % len(COLOURS)]
        marks.append(Points(*_placed(group, speeds), name, colour, hover=hover))
        sentences.append(f"{statistics.median(speeds):,.0f} of {counted(len(group), kind)} {name}")
    caption = f"Median examples/s: {', '.join(sentences)}."
    baseline = [
        s for r in results.records if r.key.role == "baseline" and (s := r.result.get("examples_per_s"))
    ]
    if baseline:
        marks.append(Reference(statistics.fmean(baseline), "x" if _is_list(records) else "y"))
        slower = sum(float(r.result["examples_per_s"]) < statistics.fmean(baseline) for r in records)
        caption += f" {slower:,} of {len(records):,} were slower than the baseline."
    caption += " A larger network is slower, so points of one colour differ."
    panel = _panel(records, marks, Axis("examples/s", low=0))
    return Chart("throughput", "How fast each training was", caption, [panel], columns=1)
