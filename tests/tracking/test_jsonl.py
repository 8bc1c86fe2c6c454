from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenet_exp.base.errors import DiskError, StoreError
from lenet_exp.tracking import jsonl

LINES: list[dict[str, Any]] = [{"n": 1}, {"text": "größer", "values": [1.5, None, True]}, {"n": 3}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with three lines."""
    path = tmp_path / "journal.jsonl"
    for line in LINES:
        jsonl.append(path, line)
    return path


def test_lines_are_read_back(path: Path) -> None:
    """What was appended is read, with the offset at which to go on."""
    entries, offset = jsonl.read(path)

    assert entries == LINES
    assert offset == path.stat().st_size


def test_reading_goes_on_at_the_offset(path: Path) -> None:
    """A reader that gives its offset back sees only what is new."""
    _, offset = jsonl.read(path)
    jsonl.append(path, {"n": 4})

    entries, _ = jsonl.read(path, offset)

    assert entries == [{"n": 4}]


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    """Reading what nobody has written yet is no error."""
    assert jsonl.read(tmp_path / "none.jsonl") == ([], 0)


def test_numbers_that_json_lacks_become_texts(tmp_path: Path) -> None:
    """NaN and the infinities are written as texts, wherever they are, so that any JSON reader copes."""
    path = tmp_path / "journal.jsonl"

    jsonl.append(path, {"a": float("nan"), "b": [float("inf"), {"c": float("-inf")}]})

    assert path.read_text() == '{"a":"nan","b":["inf",{"c":"-inf"}]}\n'


def test_a_line_cut_anywhere_costs_only_itself(path: Path) -> None:
    """Wherever a crash cuts the last line, the lines before are read and new ones can follow."""
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])

        assert jsonl.read(path) == (LINES[:2], last)

        jsonl.repair(path)
        jsonl.append(path, {"n": 4})
        assert jsonl.read(path)[0] == [*LINES[:2], {"n": 4}]


def test_a_last_line_without_its_beginning_is_cut_off(path: Path) -> None:
    """A power cut can leave a last line that ends but begins with zeros; it does not count."""
    before = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\0\0\0\0}\n")

    jsonl.repair(path)

    assert path.stat().st_size == before


@pytest.mark.parametrize(
    ("damage", "reason"), [(b"#", "Expecting value"), (b"[1]", r"expected a JSON object, found \[1\]")]
)
def test_damage_before_the_last_line_is_refused(path: Path, damage: bytes, reason: str) -> None:
    """A damaged line that others follow is no crash's doing, and nothing is made of it."""
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))

    with pytest.raises(StoreError, match=rf"journal\.jsonl is damaged at byte 8: {reason}"):
        jsonl.read(path)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """No space on the disk is an error that says so; here a limit cuts the line after three bytes."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, hard))
    try:
        with pytest.raises(DiskError, match="no space left"):
            jsonl.append(tmp_path / "journal.jsonl", {"n": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_is_appended_does_not_reach_a_file_of_the_same_inode(path: Path, tmp_path: Path) -> None:
    """A second name, as in a backup by hard links, keeps what it had."""
    (tmp_path / "backup").hardlink_to(path)
    before = path.read_bytes()

    jsonl.repair(path)
    jsonl.append(path, {"n": 4})

    assert (tmp_path / "backup").read_bytes() == before
    assert jsonl.read(path)[0] == [*LINES, {"n": 4}]


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=5))
@in_one_folder
def test_whatever_is_appended_is_read_back(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    """Every text and number comes back as it was, line breaks and lone surrogates too."""
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    for entry in entries:
        jsonl.append(path, entry)

    assert jsonl.read(path)[0] == entries


@given(st.binary(max_size=200) | st.text('{}[]:,\n"an1', max_size=60).map(str.encode))
@in_one_folder
def test_whatever_bytes_a_journal_has_it_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    """Lines or a StoreError; what was read can be added to."""
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    try:
        entries, _ = jsonl.read(path)
    except StoreError:
        return

    jsonl.repair(path)
    jsonl.append(path, {"n": 1})

    assert jsonl.read(path)[0] == [*entries, {"n": 1}]
