import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lenet_exp import __version__
from lenet_exp.cli import program
from lenet_exp.sweep import run
from tests.labs.cli_lab import Command, Ended
from tests.labs.places import PROJECT


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[run.Request]:
    """What the sweep is asked for, which it does not do."""
    asked: list[run.Request] = []
    monkeypatch.setattr(run, "run_main_job", lambda request, _: asked.append(request))
    return asked


def test_version_and_help_are_at_hand(command: Command) -> None:
    """``--version`` names it, ``-h`` and ``--help`` list every command."""
    assert command("--version") == Ended(0, f"lenet-exp {__version__}\n", "")
    for flag in ("-h", "--help"):
        shown = command(flag)
        assert shown.code == 0
        assert all(name in shown.out for name in program.commands())


@pytest.mark.parametrize("start", ["lenet_exp", "lenet_exp.sweep"])
def test_windows_is_refused_in_one_line(start: str) -> None:
    """A system without ``fcntl`` and ``resource`` is named, with the way out, before anything is loaded."""
    code = (
        "import platform, runpy, sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "platform.system = lambda: 'Windows'\n"
        f"sys.argv = ['lenet-exp', '--version']\nrunpy.run_module('{start}', run_name='__main__')"
    )

    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    assert ended.stderr == (
        "error: lenet_exp needs Linux or macOS (it uses fcntl and fork), found Windows; use WSL\n"
    )
    assert (ended.returncode, ended.stdout) == (10, "")


@pytest.mark.parametrize("name", program.commands())
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
from lenet_exp.cli import program as cli
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


def test_the_package_is_the_command_line() -> None:
    """``python -m lenet_exp`` answers as ``lenet-exp`` does, and loads nothing else for it."""
    script = "from lenet_exp.cli.program import main; main()"

    package, command = (
        subprocess.run(
            [sys.executable, "-X", "importtime", *start, "--help"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        for start in (["-m", "lenet_exp"], ["-c", script])
    )

    assert package.stdout == command.stdout
    one, other = (set(re.findall(r"\| +(\S+)\n", done.stderr)) for done in (package, command))
    assert "lenet_exp.cli.program" in one
    assert {name for name in one ^ other if name.split(".")[0] not in sys.stdlib_module_names} == set()


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
            "no experiment called 'missing', and no such file; known are "
            + ", ".join(sorted(file.stem for file in (PROJECT / "experiments").glob("*.toml"))),
        ),
        (["."], ".: is a folder; name an experiment file (.toml)"),
        (["mini.toml", "--set", "search.sampler"], "--set takes section.key=value, found 'search.sampler'"),
        (["mini.toml", "--set", "name.x=1"], "--set: 'name' in 'name.x' is not a section"),
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


def test_an_experiment_is_found_by_its_name(command: Command, requests: list[run.Request]) -> None:
    """The default is fashion_mnist; the file that lies in ./experiments is stronger than ours."""
    command("sweep")
    command("sweep", "quick")
    Path("experiments").mkdir()
    Path("experiments/quick.toml").write_text('name = "mine"')
    command("sweep", "quick")

    assert [request.experiment.name for request in requests] == ["fashion-mnist", "quick", "mine"]


def test_flags_are_stronger_than_overrides_and_these_than_the_file(
    command: Command, requests: list[run.Request]
) -> None:
    """Each flag reaches the sweep as what it means."""
    flags = ["--trials", "5", "--workers", "2", "--timeout", "1.5m", "--device", "cpu", "--root", "there"]
    overrides = ["--set", "search.trials=4", "--set", "search.seed=7", "--set", "search.pruner=none"]

    assert command("sweep", "mini.toml", *flags, *overrides).code == 0

    (asked,) = requests
    search = asked.experiment.search
    assert (search.trials, search.seed, search.pruner, search.sampler) == (5, 7, "none", "tpe")
    assert (asked.workers, asked.timeout_s, asked.device, asked.root) == (2, 90.0, "cpu", Path("there"))
    assert (asked.experiment.text, asked.tracking_uri) == (Path("mini.toml").read_text(), None)


def test_confirmation_is_part_of_the_sweep_and_a_command_of_its_own(
    command: Command, requests: list[run.Request]
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
    command: Command, requests: list[run.Request], monkeypatch: pytest.MonkeyPatch
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


def test_shapes_shows_the_layers_of_the_baseline(command: Command) -> None:
    """The book's shapes, and 61,706 parameters."""
    shown = command("shapes", "mini.toml")

    rows = [line.split() for line in shown.out.splitlines()]
    shapes = [row[-3] for row in rows if row and row[0] in ("Conv2d", "MaxPool2d", "Flatten", "Linear")]
    assert shown.code == 0
    assert shapes == ["6x28x28", "6x14x14", "16x10x10", "16x5x5", "400", "120", "84", "10"]
    assert ["total", "61,706", "416,520"] in rows
