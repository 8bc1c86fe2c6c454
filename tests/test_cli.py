import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from lenet_exp import __version__, cli, experiment, files, pipeline
from lenet_exp.record import EpochResult
from lenet_exp.study import open_study

PROJECT = Path(__file__).parent.parent

EXPERIMENT = """\
name = "mini"

[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200

[space]
lr = [0.001, 0.01, 0.1]

[search]
trials = 3
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(
    tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line in an empty folder, in which ``mini.toml`` lies."""
    monkeypatch.chdir(tmp_path)
    for name in ("LENET_EXP_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    folder = PROJECT / "tests" / "fixtures" / "fashion-mnist"
    Path("mini.toml").write_text(EXPERIMENT.format(folder=folder))

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit, match=r"^\d+$") as end:
            cli.main(arguments)
        out, err = (re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())
        return Ended(int(str(end.value)), out, err)

    return run


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[pipeline.Request]:
    """What the sweep is asked for, which it does not do."""
    asked: list[pipeline.Request] = []
    monkeypatch.setattr(pipeline, "run_sweep", asked.append)
    return asked


@pytest.fixture
def recorded(command: Command) -> Path:
    """A root folder with the study of a baseline and four trials, one of them pruned."""
    root = Path("mlruns").absolute()
    root.mkdir()
    mini = experiment.load(Path("mini.toml"))
    study = open_study(mini, root)
    baseline = study.ask_fixed("baseline", "baseline", "baseline", mini.baseline_configuration, seed=0)
    attempts = [baseline, *(study.ask() for _ in range(4))]
    for attempt, value in zip(attempts, [0.5, 0.75, 0.25, 0.875, 0.125], strict=True):
        assert attempt is not None
        study.report(attempt.key, EpochResult(1, 1.0, 0.5, 1.0, value, 1000.0, 1.0))
        if value == 0.125:
            study.tell(attempt.key, "PRUNED", result={"reason": "pruned after epoch 1"})
        else:
            study.tell(attempt.key, "COMPLETE", value, {"examples_per_s": 1234.5, "n_parameters": 61_706})
    return root


def test_version_and_help_are_at_hand(command: Command) -> None:
    """``--version`` names it, ``-h`` and ``--help`` list every command."""
    assert command("--version") == Ended(0, f"lenet-exp {__version__}\n", "")
    for flag in ("-h", "--help"):
        shown = command(flag)
        assert shown.code == 0
        assert all(name in shown.out for name in cli.commands())


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_explains_itself(command: Command, name: str) -> None:
    """Its help says what it does and shows an example to paste."""
    shown = command(name, "--help")

    assert shown.code == 0
    assert f"Example: lenet-exp {name}" in " ".join(shown.out.split())


def test_help_loads_nothing_heavy() -> None:
    """The command line answers at once: no library for training, storage, tracking or tables is imported."""
    heavy = ["torch", "torchvision", "optuna", "mlflow", "pandas", "numpy", "sqlalchemy", "scipy"]
    code = f"""
import sys
from lenet_exp import cli
for arguments in (["--help"], *([name, "--help"] for name in cli.commands())):
    try:
        cli.main(arguments)
    except SystemExit as end:
        assert end.code == 0
sys.stderr.write(" ".join(name for name in {heavy} if name in sys.modules))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )

    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweeep"], "No such command 'sweeep'"),
        (["sweep", "--trails", "3"], "No such option: --trails"),
        (["sweep", "--trials", "-1"], "search.trials: must be greater than or equal to 0, found -1"),
        (["sweep", "--trials", "1.5"], "Invalid value for '--trials'"),
        (["leaderboard", "--top", "0"], "Invalid value for '--top'"),
        (["leaderboard", "--format", "xml"], "Invalid value for '--format'"),
        (["ui", "--port", "0"], "Invalid value for '--port'"),
    ],
)
def test_an_unknown_command_or_flag_or_value_is_refused(
    command: Command, arguments: list[str], message: str
) -> None:
    """Exit code 2, and one line: what was wrong, and where help is."""
    refused = command(*arguments)

    assert (refused.code, refused.out) == (2, "")
    assert message in refused.err
    assert refused.err.startswith("error: ")
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["mini.toml", "--timeout", "x"],
            "--timeout must be a time above zero such as 90s, 30m or 2h, found 'x'",
        ),
        (
            ["mini.toml", "--timeout", "0m"],
            "--timeout must be a time above zero such as 90s, 30m or 2h, found '0m'",
        ),
        (["mini.toml", "--workers", "0"], "--workers must be a whole number above zero or auto, found '0'"),
        (
            ["mini.toml", "--workers", "abc"],
            "--workers must be a whole number above zero or auto, found 'abc'",
        ),
        (["missing.toml"], "missing.toml: no such experiment file"),
        (
            ["missing"],
            "no experiment called 'missing'; name a file, or one of "
            + ", ".join(
                sorted(file.stem for file in (Path(__file__).parent.parent / "experiments").glob("*.toml"))
            ),
        ),
        (["."], ".: is a folder; name an experiment file (.toml)"),
        (["mini.toml", "--set", "search.sampler"], "--set takes section.key=value, found 'search.sampler'"),
        (["mini.toml", "--set", "name.x=1"], "--set: 'name.x' leads through 'name', which is no section"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    command: Command, arguments: list[str], error: str, tmp_path: Path
) -> None:
    """Exit code 2, what is wrong, what was found, and nothing written."""
    assert command("sweep", *arguments) == Ended(2, "", f"error: {error}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mini.toml"]


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        (
            "validation = 200",
            "validatoin = 200",
            "mini.toml:6: unknown key 'validatoin' in [data]; did you mean 'validation'?",
        ),
        (
            "trials = 3",
            "trials = -3",
            "mini.toml:12: search.trials: must be greater than or equal to 0, found -3",
        ),
        (
            "lr =",
            "lr",
            "mini.toml: not TOML: Expected '=' after a key in a key/value pair (at line 9, column 4)",
        ),
    ],
)
def test_a_mistake_in_a_file_is_shown_with_its_line(
    command: Command, before: str, after: str, error: str
) -> None:
    """Exit code 2, and file, line, key and rule."""
    path = Path("mini.toml")
    path.write_text(path.read_text().replace(before, after))

    assert command("sweep", "mini.toml") == Ended(2, "", f"error: {error}\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.sampler=tpee",
            "search.sampler: must be 'tpe', 'random', 'grid', 'qmc' or 'cmaes', found 'tpee'",
        ),
        ("search.trails=3", "unknown key 'trails' in [search]; did you mean 'trials'?"),
        ("data.validation=many", "data.validation: must be a valid integer, found 'many'"),
    ],
)
def test_a_mistake_in_an_override_is_refused(command: Command, override: str, message: str) -> None:
    """``--set`` is checked like the file, with the rule and what was found."""
    refused = command("sweep", "mini.toml", "--set", override)

    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(rf"error: .*{re.escape(message)}\n", refused.err)


def test_control_characters_never_reach_the_terminal(command: Command) -> None:
    """A name that would set the terminal's title is shown escaped, in errors and in tables."""
    title = "\x1b]0;owned\x07"
    Path("runs.toml").write_text(f'name = "runs"\n[[run]]\nname = {json.dumps(title)}\n')

    refused = command("sweep", f"{title}.toml")
    unknown = command(title)
    shown = command("shapes", "runs.toml")

    assert refused == Ended(2, "", "error: \\x1b]0;owned\\x07.toml: no such experiment file\n")
    assert "\\x1b]0;owned" in shown.out
    for text in (refused.err, unknown.err, shown.out):
        assert all(char.isprintable() or char == "\n" for char in text)


def test_an_experiment_is_found_by_its_name(command: Command, requests: list[pipeline.Request]) -> None:
    """The default is fashion_mnist; the file that lies in ./experiments is stronger than ours."""
    command("sweep")
    command("sweep", "quick")
    Path("experiments").mkdir()
    Path("experiments/quick.toml").write_text('name = "mine"')
    command("sweep", "quick")

    assert [request.experiment.name for request in requests] == ["fashion-mnist", "quick", "mine"]


def test_flags_are_stronger_than_overrides_and_these_than_the_file(
    command: Command, requests: list[pipeline.Request]
) -> None:
    """Each flag reaches the sweep as what it means."""
    flags = ["--trials", "5", "--workers", "2", "--timeout", "1.5m", "--device", "cpu", "--root", "there"]
    overrides = ["--set", "search.trials=4", "--set", "search.seed=7", "--set", "search.pruner=none"]

    assert command("sweep", "mini.toml", *flags, *overrides).code == 0

    (asked,) = requests
    search = asked.experiment.search
    assert (search.trials, search.seed, search.pruner, search.sampler) == (5, 7, "none", "tpe")
    assert (asked.workers, asked.timeout_s, asked.device, asked.root) == (2, 90.0, "cpu", Path("there"))
    assert (asked.path, asked.tracking_uri) == (Path("mini.toml"), None)


def test_confirmation_is_part_of_the_sweep_and_a_command_of_its_own(
    command: Command, requests: list[pipeline.Request]
) -> None:
    """A sweep goes on to it unless told not to; alone it searches nothing, and may be asked for more."""
    command("sweep", "mini.toml")
    command("sweep", "mini.toml", "--no-confirm")
    command("confirm", "mini.toml")
    command("confirm", "mini.toml", "--again", "--dataset", "mnist", "--set", "confirm.seeds=7")
    command("confirm", "mini.toml", "--dataset", "mnist", "--set", "data.folder=digits")

    assert [(asked.search, asked.confirm) for asked in requests] == [
        (True, True),
        (True, False),
        (False, True),
        (False, True),
        (False, True),
    ]
    assert [(asked.again, asked.conducted.name) for asked in requests[2:]] == [
        (False, "mini"),
        (True, "mini@mnist"),
        (False, "mini@mnist"),
    ]
    assert [asked.conducted.data.folder for asked in requests[3:]] == [None, "digits"]
    assert requests[3].experiment.confirm.seeds == 7


def test_root_and_tracking_server_can_come_from_the_environment(
    command: Command, requests: list[pipeline.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flag is stronger than its variable, and an empty variable is none."""
    monkeypatch.setenv("LENET_EXP_ROOT", "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    command("sweep", "mini.toml")
    command("sweep", "mini.toml", "--root", "here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    command("sweep", "mini.toml")

    assert [request.root for request in requests] == [Path("elsewhere"), Path("here"), Path("elsewhere")]
    uris = ["http://127.0.0.1:5000", "http://127.0.0.1:5000", None]
    assert [request.tracking_uri for request in requests] == uris


def test_a_damaged_data_file_is_found_before_any_trial(command: Command, tmp_path: Path) -> None:
    """Exit code 4, the file's path, and no study."""
    folder = shutil.copytree(PROJECT / "tests" / "fixtures" / "fashion-mnist", tmp_path / "cut")
    images = folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(gzip.decompress(images.read_bytes())[:-1]))

    refused = command("sweep", "mini.toml", "--set", f"data.folder={folder}")

    assert (refused.code, refused.out) == (4, "")
    assert re.fullmatch(rf"error: .*{re.escape(str(images))}.*\n", refused.err)
    assert not list(tmp_path.rglob("study.db"))


def test_a_root_that_cannot_be_written_is_refused(command: Command) -> None:
    """Exit code 5, the path and what to do."""
    Path("mlruns").write_text("a file in the way")

    refused = command("sweep", "mini.toml")

    assert (refused.code, refused.out) == (5, "")
    assert re.fullmatch(
        r"error: .*/mlruns/mini: cannot be written: .*; choose another folder with --root\n", refused.err
    )


def test_a_second_sweep_is_kept_away(command: Command) -> None:
    """Exit code 8, and who holds the experiment."""
    folder = Path("mlruns/mini")
    folder.mkdir(parents=True)

    with files.lock(folder / ".lock"):
        refused = command("sweep", "mini.toml")

    assert (refused.code, refused.out) == (8, "")
    assert re.fullmatch(
        rf"error: .*mini is held by pid {os.getpid()} since .* on host .*; wait for it, or end it\n",
        refused.err,
    )
    assert not Path("mlruns/study.db").exists()


def test_a_device_that_is_not_there_is_refused(command: Command) -> None:
    """Exit code 10, before a study is begun."""
    refused = command("sweep", "mini.toml", "--device", "cuda:99")

    assert (refused.code, refused.out) == (10, "")
    assert re.fullmatch(r"error: device 'cuda:99' cannot be used: .*\n", refused.err)
    assert not Path("mlruns/study.db").exists()


def test_an_experiment_that_never_ran_has_no_leaderboard(command: Command, recorded: Path) -> None:
    """Exit code 3, the root that was looked in, and nothing made there."""
    elsewhere = command("leaderboard", "mini.toml", "--root", "elsewhere")
    other = command("leaderboard", "quick")

    assert (elsewhere.code, other.code) == (3, 3)
    assert re.fullmatch(
        r"error: 'mini' was never run under .*/elsewhere; run: lenet-exp sweep\n", elsewhere.err
    )
    assert re.fullmatch(r"error: 'quick' was never run under .*/mlruns; run: lenet-exp sweep\n", other.err)
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


def test_a_port_in_use_is_refused(command: Command) -> None:
    """Exit code 6, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = command("ui", "--port", str(port))

    assert refused.code == 6
    assert re.fullmatch(rf"error: port {port} is in use by .*; choose another with --port\n", refused.err)


def test_the_leaderboard_is_a_table_for_people(command: Command, recorded: Path) -> None:
    """Ranks, the baseline, differences from it and what became of a pruned trial."""
    shown = command("leaderboard", "mini.toml")

    rows = [line.split()[:5] for line in shown.out.splitlines()[4:-1]]
    assert (shown.code, shown.err) == (0, "")
    assert rows[0] == ["1", "trial", "2", "0.8750", "+0.3750"]
    assert rows[2][:3] == ["3", "baseline", "0.5000"]
    assert "PRUNED" in shown.out.splitlines()[-2]


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


def test_shapes_shows_the_layers_of_the_baseline(command: Command) -> None:
    """The book's shapes, and 61,706 parameters."""
    shown = command("shapes", "mini.toml")

    rows = [line.split() for line in shown.out.splitlines()]
    shapes = [row[-3] for row in rows if row and row[0] in ("Conv2d", "MaxPool2d", "Flatten", "Linear")]
    assert shown.code == 0
    assert shapes == ["6x28x28", "6x14x14", "16x10x10", "16x5x5", "400", "120", "84", "10"]
    assert ["total", "61,706", "416,520"] in rows


@pytest.mark.parametrize("arguments", [["--version"], ["leaderboard", "mini.toml", "--format", "csv"]])
def test_a_reader_that_has_seen_enough_is_no_error(recorded: Path, arguments: list[str]) -> None:
    """``| head`` ends the command without a word, whether it prints at once or when it ends."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", "from lenet_exp.cli import main; main()", *arguments]

    done = subprocess.run(
        command,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONPATH": str(PROJECT)},
        check=False,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("device", ["meta", "cuda:-1", "cuda:99", "xla", "", "cpu:x", "\x1b[31m"])
def test_a_device_is_tried_before_it_is_taken(command: Command, device: str) -> None:
    """Names that torch knows and cannot compute on, and those that it does not know: exit code 10."""
    refused = command("sweep", "mini.toml", "--device", device)

    assert (refused.code, refused.out) == (10, "")
    assert re.fullmatch(r"error: device '[^\n]*' cannot be used: [^\n]+\n", refused.err)


@pytest.mark.parametrize("linked", ["mini", "mini/spool", "mini/checkpoints"])
@pytest.mark.parametrize("name", ["sweep", "sync"])
def test_a_link_that_leads_out_of_the_root_is_not_followed(command: Command, linked: str, name: str) -> None:
    """Exit code 2, and nothing is written at its other end."""
    link, outside = Path("mlruns", linked), Path("outside")
    link.parent.mkdir(parents=True)
    outside.mkdir()
    link.symlink_to(outside.absolute())

    refused = command(name, "mini.toml")

    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(r"error: .* is a link that leads out of .*/mlruns; .*\n", refused.err)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("root", ["50%", "why?", "a#b"])
def test_a_root_that_mlflow_misreads_is_refused_before_anything_is_written(
    command: Command, root: str
) -> None:
    """Exit code 2, and no folder."""
    refused = command("sweep", "mini.toml", "--root", root)

    assert (refused.code, refused.out) == (2, "")
    assert re.fullmatch(r"error: MLflow cannot keep its store in .*; choose another --root\n", refused.err)
    assert not Path(root).exists()


def read_only(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, for which the root folder is on a read-only disk."""
    mount = f'mount --bind "{root}" "{root}" && mount -o remount,ro,bind "{root}"'
    command = [sys.executable, "-c", "from lenet_exp.cli import main; main()", *arguments]
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

    assert (shown.returncode, shown.stdout, shown.stderr) == (0, expected.out, "")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert re.fullmatch(
        r"error: .*mini: cannot be written: Read-only file system; choose another .*\n", refused.stderr
    )
