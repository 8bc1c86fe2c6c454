"""A sweep halfway, as what shows it sees it."""

from __future__ import annotations

from lenet_exp.progress.state import Counts, Incumbent, Note, Progress, Running, TimeLeft

HALFWAY = Progress(
    experiment="fashion",
    phase="search",
    n_done=7,
    n_total=14,
    counts=Counts(complete=5, pruned=1, infeasible=2, failed=1, retried=1),
    running=(
        Running("trial 7", 10, "max c12-30 lr 0.0031", 31.0, 30.0, 4, 0.8712, 5210.0),
        Running("trial 8", 10, "gelu lr 0.02"),
    ),
    incumbent=Incumbent("trial 2", 0.8931, 0.0123),
    left=TimeLeft(240, 360, 540),
    tracking="spooling 3 runs",
    memory_bytes=12_000_000_000,
    disk_bytes=33_000_000_000,
    notes=(Note(1e9, "trial 2: val_accuracy 0.8931"), Note(1e9 + 60, "warning: no answer")),
    ran_s=130.0,
    updated=1e9 + 61,
)
