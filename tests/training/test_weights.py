"""Weights are known by their digest, and what is not as recorded is trained again."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.errors import DataError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.study.records import TrialRecord
from lenet_exp.training.weights import SHA256, damaged_weights, read_weights, restore_weights, weights_digest
from tests.labs.tasks import make_task

SMALL = configuration(
    overlay(PRESETS["lenet"], {"channels": 4, "fc_layers": 1, "precision": "float32", "batch_size": 20})
).model_copy(update={"epochs": 1})


def garble(path: Path) -> None:
    """Change a bit."""
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def put_folder(path: Path) -> None:
    """Put a folder in its place."""
    path.unlink()
    (path / "x").mkdir(parents=True)


def put_fifo(path: Path) -> None:
    """Put a FIFO in its place, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def put_link(path: Path) -> None:
    """Put a link to other weights in its place."""
    path.rename(path.with_name("other"))
    garble(path.with_name("other"))
    path.symlink_to(path.with_name("other"))


@pytest.mark.parametrize("damage", [garble, Path.unlink, put_folder, put_fifo, put_link])
def test_weights_that_are_not_as_recorded_are_named(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """Whoever loads them is told, and nobody waits for a FIFO; an attempt without a digest is left out."""
    layout = Layout.of(tmp_path, "e")
    records = []
    for number in range(3):
        key = RunKey("trial", number, 1)
        layout.weights(key).parent.mkdir(parents=True)
        layout.weights(key).write_bytes(b"weights of %d" % number)
        result = {SHA256: weights_digest(layout.weights(key))} if number < 2 else {}
        records.append(TrialRecord(key, "COMPLETE", f"trial {number}", SMALL, 1, result=result))
    assert damaged_weights(records, layout) == []

    for record in records[1:]:
        damage(layout.weights(record.key))

    assert damaged_weights(records, layout) == [records[1]]
    with pytest.raises(DataError, match=r"weights.safetensors: (is|cannot be read)"):
        read_weights(layout.weights(records[1].key), records[1].result[SHA256])


def test_damaged_weights_are_trained_again(mini: ImageSet, tmp_path: Path) -> None:
    """They are the same; where they are not, their digest is kept, and the result stays as it was."""
    task = make_task(mini, tmp_path, SMALL, limit=300)
    record = TrialRecord(task.key, "COMPLETE", "trial 0", SMALL, 1)
    path = task.conditions.layout.weights(task.key)
    kept: dict[str, Any] = {}

    def restored(record: TrialRecord) -> str:
        return restore_weights(record, "train", task.conditions, executor, kept, kept.__setitem__)

    with closing(LocalExecutor()) as executor:
        assert "which cannot be compared" in restored(record)
        whole = path.read_bytes()
        record = replace(record, result=kept.pop(SHA256) and {SHA256: weights_digest(path)})
        put_folder(path)
        assert restored(record) == (
            "trial 0: its weights were missing or damaged; trained again, with the same weights"
        )
        assert (path.read_bytes(), kept) == (whole, {})
        other = replace(record, result={SHA256: "of another machine"})
        assert "with other weights, as machine or code are others" in restored(other)

    assert kept == {SHA256: {"trial-00000-1": weights_digest(path)}}
    assert damaged_weights([other], task.conditions.layout) == [other]
    assert damaged_weights([other], task.conditions.layout, kept) == []
    assert len(list(path.parent.glob("*.damaged-*"))) >= 1
