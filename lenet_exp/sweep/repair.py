"""What a driver that died left behind, put right at the next start. Each step may be done twice."""

from __future__ import annotations

import contextlib

from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.execution import checkpoint
from lenet_exp.study.study import Study
from lenet_exp.tracking.events import AttemptRecord
from lenet_exp.tracking.spool import Spool


def reconcile(study: Study, spool: Spool, layout: Layout) -> None:
    """End what was RUNNING: as the spool has it if that is whole, else as interrupted, to be tried again.

    The caller holds the experiment's lock, so that no other driver is at work.
    """
    for key in study.orphans():
        spooled = spool.read(key)
        if spooled is None or not _adopt(study, spool, spooled):
            if spooled is not None:
                spool.end(key, "FAIL", "interrupted")
            study.fail(key, "interrupted", retry=True, crashed=False)
    told = {record.key: record for record in study.records()}
    for unfinished in spool.unfinished():
        record = told.get(unfinished.key)
        if record is None or record.state not in ("COMPLETE", "PRUNED"):
            spool.end(unfinished.key, "FAIL", "interrupted")
        else:  # the disk was full when it should have been written
            weights = layout.kept_weights(record.key) if record.state == "COMPLETE" else None
            spool.end(record.key, record.state, record.reason, weights=weights)
    _clean_checkpoints(study, layout)


def _adopt(study: Study, spool: Spool, spooled: AttemptRecord) -> bool:
    """Tell the study how an attempt ended, if the spool has all of it; return whether it had."""
    end = spooled.end
    if end is None or not end.facts or end.state not in ("COMPLETE", "PRUNED"):
        return False
    if end.state == "COMPLETE" and not spooled.epochs:
        return False
    if end.weights is not None and not spool.inside(end.weights).is_file():
        return False
    study.complete_history(spooled.key, spooled.epochs)
    value = spooled.epochs[-1].val_accuracy if spooled.epochs else None
    study.tell(spooled.key, end.state, value, end.facts)
    return True


def _clean_checkpoints(study: Study, layout: Layout) -> None:
    """Delete the checkpoints of trainings that are over, and the weights of those that have no result."""
    if not layout.checkpoints.is_dir():
        return
    is_open = {origin.stem for origin in study.open_origins()}
    has_result = {record.key.stem for record in study.records() if record.state == "COMPLETE"}
    for file in layout.checkpoints.iterdir():
        with contextlib.suppress(ValueError):  # not ours
            key = RunKey.from_stem(file.name)
            if file.name not in is_open and file.is_dir() and not file.is_symlink():
                if file.name not in has_result:
                    layout.weights(key).unlink(missing_ok=True)
                checkpoint.discard(file)
