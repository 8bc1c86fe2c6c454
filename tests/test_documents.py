"""What the documents promise to whoever pastes from them: commands, links, files and examples that work."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from lenet_exp.cli.program import app, commands
from lenet_exp.config.loader import experiment_path, load, parse
from lenet_exp.data.sources import SYSTEM_FOLDER
from tests.labs.documents import (
    DOCUMENTS,
    EXPERIMENTS,
    PACKAGE,
    README,
    anchors,
    blocks,
    code_spans,
    links,
    pasted,
    prose,
    rows,
    section,
    sessions,
    title,
)
from tests.labs.places import MINI_FOLDER, PROJECT
from tests.labs.swept import Swept

#: Longer ones are not read to their end.
README_BYTES, OTHER_BYTES = 12_000, 22_000

#: Arguments of nox's sessions go to these.
_PROGRAMS = {
    "crash": "tests/crash/kills.py",
    "bench": "tests/benchmarks/compare.py",
    "gpu": "tests/gpu.py",
    "statistics": "tests/labs/simulated_tables.py",
}

#: The commands as click has them, with their options.
_COMMANDS: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - of a group alone

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=title)


# How they are made.


@every_document
def test_a_document_is_short_and_begins_with_what_it_is_for(document: Path) -> None:
    """The README most of all; each begins with its title and a sentence."""
    assert len(document.read_bytes()) <= (README_BYTES if document == README else OTHER_BYTES)
    first, _, second = document.read_text().split("\n")[:3]
    assert first.startswith("# ")
    assert re.match(r"[A-Z]", second)


def test_the_readme_leads_to_each_document_once() -> None:
    """Nobody has to search, and nothing is said twice."""
    targets = [target.partition("#")[0] for target, _ in links(README)]

    for document in DOCUMENTS[1:]:
        assert targets.count(title(document)) == 1


def test_the_readme_has_one_picture() -> None:
    """It is a PNG that comes with the project, with words for those who do not see it."""
    ((target, _),) = [link for link in links(README) if link[1]]
    (words,) = re.findall(r"!\[([^\]]+)\]", prose(README))

    content = (PROJECT / target).read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert min(width, height) > 0
    assert len(words) > 40


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file of the project, and to a heading where it names one."""
    for target, _ in links(document):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# Commands.


def test_two_commands_do_all_the_set_up() -> None:
    """The first installs and runs the main job, the second installs and runs the tests; each is one line."""
    install, test = (block.strip().splitlines() for block in blocks(README, "bash")[:2])

    assert len(install) == len(test) == 1
    assert "python -m lenet_exp.sweep experiments/quick.toml" in install[0]
    assert test[0].endswith("nox -s tests")


def test_continuous_integration_runs_those_two_commands() -> None:
    """What is checked is what a user pastes."""
    script = (PROJECT / ".ci" / "run").read_text()

    assert "readme_command 1" in script
    assert "readme_command 2" in script


def test_every_command_is_in_the_table_and_every_row_is_a_command() -> None:
    """A feature that nobody can find is none."""
    table = " ".join(row[0] for row in rows(section(README, "Commands")))

    assert sorted(re.findall(r"`lenet-exp ([a-z]+)", table)) == commands()


@every_document
def test_every_command_that_is_pasted_exists(document: Path) -> None:
    """With all its options and values, and with the experiment and the keys that it names."""
    for words in pasted(document):
        _check(words[: words.index(">")] if ">" in words else words)


def _check(words: list[str]) -> None:
    """Raise unless a command would be understood."""
    match [words[0].rpartition("/")[2], *words[1:]]:
        case ["lenet-exp", name, *arguments] | ["python", "-m", "lenet_exp", name, *arguments]:
            _check_command(name, arguments)
        case ["python", "-m", "lenet_exp.sweep", *arguments]:
            _check_command("sweep", arguments)
        case ["nox", *arguments]:
            _check_nox(arguments)
        case ["python", "-c", code]:
            compile(code, "document", "exec")
        case ["optuna-dashboard", storage]:  # tests/browser opens it
            assert storage == "sqlite:///copy.db"
        case ["python", script]:
            assert (PROJECT / script).is_file()
        case (
            ["pip", "install", "." | "nox"] | ["python3", "-m", "venv", ".venv"] | [".", ".venv/bin/activate"]
        ):
            pass
        case ["pip", "install", extra]:
            project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
            assert extra.removeprefix(".[").removesuffix("]") in project["optional-dependencies"]
        case _:
            pytest.fail(f"nobody knows this command: {' '.join(words)}")


def _check_command(name: str, arguments: list[str]) -> None:
    given = _COMMANDS[name].make_context(name, list(arguments)).params
    if "experiment" in given:
        load(experiment_path(given["experiment"]), given.get("overrides") or ())


def _check_nox(arguments: list[str]) -> None:
    own, _, passed_on = " ".join(arguments).partition(" -- ")
    names = own.removeprefix("--no-venv ").removeprefix("-s ").split()
    assert set(names) <= sessions(), arguments
    for name in names:
        for flag in re.findall(r"--[a-z-]+", passed_on):
            assert name not in _PROGRAMS or f'"{flag}"' in (PROJECT / _PROGRAMS[name]).read_text()


@every_document
def test_every_command_in_the_text_exists(document: Path) -> None:
    """Also where it is only spoken of, and every flag, session, key and variable."""
    options = {name: {flag for one in each.params for flag in one.opts} for name, each in _COMMANDS.items()}
    known = {flag for flags in options.values() for flag in flags} | {
        "--help",
        "--no-venv",
        "--kills",
        "--sweeps",
        "--signal",
    }
    known |= {flag for one in _COMMANDS["sweep"].params for flag in one.secondary_opts}
    code = "".join(path.read_text() for path in (PROJECT / "lenet_exp").rglob("*.py"))
    for span in code_spans(document):
        if found := re.match(r"lenet-exp ([a-z]+)\b", span):
            assert set(re.findall(r"--[a-z-]+", span)) <= options[found[1]] | {"--help"}, span
        if found := re.match(r"nox (?:--no-venv )?-s ([a-z ]+)", span):
            assert set(found[1].split()) <= sessions(), span
        if re.match(r"--[a-z]", span):
            assert re.findall(r"--[a-z-]+", span)[0] in known, span
        for variable in re.findall(r"LENET_EXP_[A-Z_]+", span):
            assert variable in code, span


# Experiment files.


@pytest.mark.parametrize("text", [text for document in DOCUMENTS for text in blocks(document, "toml")])
def test_every_experiment_file_that_is_shown_is_valid(text: str) -> None:
    """A fragment needs no more than a name; what is commented out can be switched on."""
    shown = text if re.search(r"^name = ", text, re.MULTILINE) else f'name = "fragment"\n{text}'
    optional = re.sub(r"^# (\w+ = )", r"\1", shown, flags=re.MULTILINE)

    assert parse(tomllib.loads(shown))
    assert parse(tomllib.loads(optional))


def test_every_experiment_file_is_listed_and_valid() -> None:
    """The table tells what each asks."""
    files = sorted((PROJECT / "experiments").glob("*.toml"))
    listed = [row[0] for row in rows(section(EXPERIMENTS, "The files"))]

    assert sorted(listed) == [f"[`{file.name}`]({file.name})" for file in files]
    for file in files:
        assert load(file).question


def test_the_readme_knows_how_many_there_are() -> None:
    """And what the default asks for."""
    default = load(experiment_path(None))
    count = len(list((PROJECT / "experiments").glob("*.toml")))

    assert count == 15
    assert "All fifteen files" in prose(README)
    assert f"{default.search.trials} trials of up to ten epochs" in prose(README).replace("\n", " ")
    assert default.base["epochs"] == 10


# Python.


def run(code: str, folder: Path) -> list[str]:
    """Return the lines that a Python of its own prints that is given the code."""
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=code, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_example_in_python_runs(tmp_path: Path, data_cache: Path) -> None:
    """The README's, as it stands, but for fewer and smaller trials."""
    (code,) = blocks(README, "python")
    small: dict[str, object] = {"data.dataset": "fashion-mnist-mini", "data.folder": str(MINI_FOLDER)}
    small |= {"data.validation": 200, "data.limit": 200, "search.trials": 2}
    short = code.replace('{"search.trials": 8}', repr(small)).replace(
        'open_results("quick"', "open_results(experiment"
    )
    assert short.count("fashion-mnist-mini") == 1
    asked = "print(len(results.leaderboard), len(results.curves), len(results.verdicts), network.training)"
    asked += "\nprint(same.leaderboard.equals(results.leaderboard))"

    *_, counts, is_same = run(f"{short}\n{asked}", tmp_path)

    # The baseline and two trials, and then one of them and the baseline on two seeds.
    assert counts == "3 7 1 False"
    assert is_same == "True"


def test_the_recorded_things_load_as_written(swept_once: Swept, tmp_path: Path) -> None:
    """A model without this project, and a table whose counts are whole numbers."""
    model, table = blocks(EXPERIMENTS, "python")
    model = model.replace("mlruns/mlflow.db", f"{swept_once.root}/mlflow.db").replace(
        "models:/quick@", "models:/swept@"
    )
    table = table.replace("mlruns/quick", str(swept_once.home))

    assert run(f"{model}\nprint(logits.shape)", tmp_path) == ["(2, 10)"]
    assert run(f"{table}\nprint(rows['trial'].dtype, rows['epochs'].dtype)", tmp_path) == ["Int64 Int64"]


@pytest.mark.full_data
@pytest.mark.slow
def test_the_loop_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook can take it as it stands, here for one epoch."""
    if not list((SYSTEM_FOLDER / "fashion-mnist").glob("train-*")):
        pytest.skip("the full Fashion-MNIST is not on this machine")
    (code,) = blocks(PACKAGE, "python")
    short = code.replace('PRESETS["lenet"]', 'PRESETS["lenet"] | {"epochs": 1}')
    assert short != code

    exec(compile(short, title(PACKAGE), "exec"), {})

    epoch, accuracy = capsys.readouterr().out.split()
    assert int(epoch) == 1
    assert float(accuracy) > 0.6
