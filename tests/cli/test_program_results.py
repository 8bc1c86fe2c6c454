import json
import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from tests.labs.cli_lab import Command, Ended
from tests.labs.places import PROJECT


def test_an_experiment_that_never_ran_has_no_leaderboard(command: Command, recorded: Path) -> None:
    """Exit code 3, the root that was looked in, and nothing made there."""
    elsewhere = command("leaderboard", "mini.toml", "--root", "elsewhere")
    other = command("leaderboard", "quick")

    assert (elsewhere.code, other.code) == (3, 3)
    advice = r"run 'lenet-exp sweep mini\.toml --root .*elsewhere'"
    assert re.fullmatch(rf"error: 'mini' was never run under .*elsewhere; {advice}\n", elsewhere.err)
    assert re.fullmatch(
        r"error: 'quick' was never run under .*mlruns; run 'lenet-exp sweep .*quick.toml.*'\n", other.err
    )
    assert not Path("elsewhere").exists()


def test_a_damaged_study_is_told_apart(command: Command) -> None:
    """Exit code 9, and the file is left as it is."""
    study = Path("mlruns/study.db")
    study.parent.mkdir()
    study.write_bytes(b"not a database" * 1000)

    refused = command("leaderboard", "mini.toml")

    assert refused.code == 9
    assert re.fullmatch(r"error: .*study.db: the study's storage is damaged: .*\n", refused.err)
    assert study.read_bytes() == b"not a database" * 1000


def test_the_leaderboard_is_a_table_for_people(command: Command, recorded: Path) -> None:
    """Ranks, the baseline, differences from it and what became of a pruned trial."""
    shown = command("leaderboard", "mini.toml")

    rows = [line.split()[:5] for line in shown.out.splitlines()[3:]]
    assert (shown.code, shown.err) == (0, "")
    assert rows[0] == ["1", "trial", "2", "0.8750", "+0.3750"]
    assert rows[2][:3] == ["3", "baseline", "0.5000"]
    assert "PRUNED" in shown.out


@pytest.mark.parametrize("style", ["csv", "markdown", "json"])
def test_the_leaderboard_is_printed_for_machines(command: Command, recorded: Path, style: str) -> None:
    """Each format has the first rows and every column."""
    shown = command("leaderboard", "mini.toml", "--format", style, "--top", "2")

    assert (shown.code, shown.err) == (0, "")
    if style == "csv":
        values = pd.read_csv(StringIO(shown.out))["val_accuracy"].tolist()
    elif style == "json":
        values = [row["val_accuracy"] for row in json.loads(shown.out)]
    else:
        header, _, *rows = [line.strip("| \n").split(" | ") for line in shown.out.splitlines()]
        values = [float(row[header.index("val_accuracy")]) for row in rows]
    assert values == [0.875, 0.75]


def test_the_leaderboard_is_written_to_a_file(command: Command, recorded: Path) -> None:
    """``--csv`` writes what ``--format csv`` prints, and prints nothing itself."""
    printed = command("leaderboard", "mini.toml", "--format", "csv", "--top", "2").out

    assert command("leaderboard", "mini.toml", "--top", "2", "--csv", "best.csv") == Ended(0, "", "")

    assert Path("best.csv").read_text() == printed
    assert command("leaderboard", "mini.toml", "--csv", ".").code == 2
    assert command("leaderboard", "mini.toml", "--csv", "nowhere/best.csv").code == 5


@pytest.mark.parametrize("arguments", [["--version"], ["leaderboard", "mini.toml", "--format", "csv"]])
def test_a_reader_that_has_seen_enough_is_no_error(recorded: Path, arguments: list[str]) -> None:
    """``| head`` ends the command without a word, whether it prints at once or when it ends."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    # On a slow machine a step would be told, which is no complaint.
    quiet = "from lenet_exp.base import messages; messages.TOLD_AFTER_S = 3600"
    command = [sys.executable, "-c", f"{quiet}; from lenet_exp.cli.program import main; main()", *arguments]

    done = subprocess.run(
        command,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONPATH": str(PROJECT)},
        check=False,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")


def read_only(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, for which the root folder is on a read-only disk."""
    mount = f'mount --bind "{root}" "{root}" && mount -o remount,ro,bind "{root}"'
    command = [sys.executable, "-c", "from lenet_exp.cli.program import main; main()", *arguments]
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_on_a_read_only_disk_results_can_be_read_and_nothing_is_begun(
    command: Command, recorded: Path
) -> None:
    """The leaderboard is as ever, also while the study's journal is not folded in; a sweep is refused."""
    if shutil.which("unshare") is None or read_only(recorded, "--version").returncode:
        pytest.skip("this system lets nobody make a read-only mount of their own")
    expected = command("leaderboard", "mini.toml", "--format", "csv")

    shown = read_only(recorded, "leaderboard", "mini.toml", "--format", "csv")
    refused = read_only(recorded, "sweep", "mini.toml")

    assert (shown.returncode, shown.stdout) == (0, expected.out)
    assert shown.stderr in ("", "reading the study\n")  # told where it takes longer than a second
    assert (refused.returncode, refused.stdout) == (5, "")
    assert re.fullmatch(
        r"error: .*mini: cannot be written: Read-only file system; choose another .*\n", refused.stderr
    )
