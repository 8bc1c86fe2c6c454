"""Results of a study that was never run, for figures, and what a chart is expected to have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import EpochResult, RunKey, State
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.results.figures.chart import Chart, Images, Mark, Parallel
from lenet_exp.results.lookup import ExperimentResults
from lenet_exp.study.records import TrialRecord
from lenet_exp.tracking.events import End, RunLog
from lenet_exp.tracking.spool import Spool

LENET = configuration(PRESETS["lenet"] | {"epochs": 2})
#: A name that a browser, plotly and matplotlib would each obey in their way.
EVIL = "<b>x</b> %{y} $\\frac \x1b[31m </script><script>alert(1)</script>"


def record(number: int, value: float, state: State = "COMPLETE", **changes: Any) -> TrialRecord:
    """Return a trial, or the baseline if its number is negative.

    Args:
        number: Number of the trial.
        value: val_accuracy after its second and last epoch.
        state: State of the trial.
        changes: Hyper-parameters that differ from LeNet's.
    """
    role = "baseline" if number < 0 else "trial"
    return TrialRecord(
        key=RunKey(role, max(0, number), 1),
        state=state,
        label="baseline" if number < 0 else f"trial {number}",
        configuration=LENET.model_copy(update=changes),
        seed=0,
        history={1: value / 2, 2: value},
        result={"n_parameters": 1000 * (number + 2), "examples_per_s": 10_000.0 - 100 * number},
        value=value if state == "COMPLETE" else None,
    )


#: The baseline and trials out of order: one is pruned, one far below the others, one was tried again.
STUDY = [
    record(-1, 0.85),
    record(2, 0.88, lr=0.1, activation="tanh"),
    record(0, 0.84, lr=0.001),
    record(1, 0.60, "PRUNED", lr=0.01),
    record(3, 0.10, lr=0.3),
    record(4, 0.86, lr=0.03),
    replace(record(5, 0.9), state="FAIL", value=None, result={"retried": True}),
]


def results(records: Sequence[TrialRecord], folder: Path, **written: Any) -> ExperimentResults:
    """Return the results of a search over ``lr``, whose every record has a log of its epochs.

    Args:
        records: Records of the attempts.
        folder: Folder below which nothing is written.
        written: Tables of the experiment file, instead of the space.
    """
    space = written or {"space": {"lr": {"low": 1e-4, "high": 1.0, "log": True}}}
    experiment = Experiment.model_validate({"name": "drawn", **space})
    layout = Layout.of(folder, "drawn")
    made = ExperimentResults(experiment, layout, records, Spool(layout.spool), {})
    made.__dict__["run_logs"] = {r.key: _log(r) for r in records}
    return made


def _log(record: TrialRecord) -> RunLog:
    """Return a log of epochs of a second each, which begins ten seconds after that of the trial before."""
    start = 10_000 * (record.trial + (record.key.role != "baseline"))
    epochs = tuple(EpochResult(e, 1.0 / e, v, 1.0 - v, v, 1e4, 1.0 * e) for e, v in record.history.items())
    times = tuple(start + 1000 * e.epoch for e in epochs)
    end = End(start + 2000, record.state)
    return RunLog(record.key, {"label": record.label}, start, epochs, times, end)


def listed(records: Sequence[TrialRecord], *labels: str) -> list[TrialRecord]:
    """Return trials as listed runs.

    Args:
        records: Records of trials.
        labels: Name of each.
    """
    keyed = zip(records, labels, strict=True)
    return [replace(r, key=RunKey("run", r.trial, 1), label=label) for r, label in keyed]


def marks(chart: Chart | None) -> dict[str, Mark]:
    """Return the marks of a chart by the names in its legend."""
    assert chart is not None
    return chart.legend()


def check(chart: Chart) -> None:
    """Check what every figure must have: heading, caption, and titles of its axes unless they are names."""
    assert chart.title
    assert chart.caption.endswith(".")
    for panel in chart.panels:
        if isinstance(panel.marks[0], Images | Parallel):
            continue
        assert panel.x is not None
        assert panel.y is not None
        assert all(axis.title or axis.scale == "category" for axis in (panel.x, panel.y))
