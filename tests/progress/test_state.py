from __future__ import annotations

import json

import pytest

from lenet_exp.progress.state import Progress
from tests.labs.progresses import HALFWAY


def test_what_is_written_is_what_is_read() -> None:
    """Whoever watches sees what the sweep saw, and a version with other fields is understood."""
    written = json.loads(HALFWAY.to_json()) | {"of another version": 1}

    assert Progress.from_json(json.dumps(written)) == HALFWAY
    assert Progress.from_json(Progress().to_json()) == Progress()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"phase": "x"}', '{"n_done": "3"}', '{"running": [3]}', '{"left": {"low_s": "a"}}'],
)
def test_what_is_no_progress_is_refused(text: str) -> None:
    """Anybody may have written the file."""
    with pytest.raises(ValueError, match=r"not the progress of a sweep|Expecting value"):
        Progress.from_json(text)
