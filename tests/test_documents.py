"""What the README promises, compared with what is there."""

import re
import tomllib

import pytest

from lenet_exp.base import errors
from lenet_exp.cli.program import commands
from lenet_exp.config.loader import load, parse
from lenet_exp.data.sources import SYSTEM_FOLDER
from tests.labs.places import PROJECT

README = (PROJECT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_two_commands_do_all_the_set_up() -> None:
    """The first installs and runs the main job, the second installs and runs the tests; each is one line."""
    install, test = (block.strip().splitlines() for block in blocks("bash")[:2])

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
    assert sorted(set(re.findall(r"^\| `lenet-exp ([a-z]+)", README, re.MULTILINE))) == commands()


def test_every_exit_code_is_in_the_table() -> None:
    """A script can rely on what is written."""
    codes = {
        e.exit_code
        for e in vars(errors).values()
        if isinstance(e, type) and issubclass(e, errors.LenetExpError)
    }
    table = README[README.index("| code | meaning") :]
    written = {int(code) for code in re.findall(r"\b(\d{1,3})\b(?=[ ,]*(?:\d+ )?\|)", table.split("\n\n")[0])}

    assert codes - {1} <= written | {143}


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_experiment_file_of_the_readme_is_valid(text: str) -> None:
    """Also with its optional lines switched on."""
    parse(tomllib.loads(text))
    optional = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    assert optional != text
    parse(tomllib.loads(optional))


def test_every_experiment_file_is_listed_and_valid() -> None:
    """The table tells what each asks."""
    files = sorted((PROJECT / "experiments").glob("*.toml"))
    listed = re.findall(r"^\| `experiments/(\w+)\.toml`", README, re.MULTILINE)

    assert sorted(listed) == [file.stem for file in files]
    for file in files:
        assert load(file).question


@pytest.mark.full_data
def test_the_example_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook can take it as it stands, here for one epoch."""
    if not list((SYSTEM_FOLDER / "fashion-mnist").glob("train-*")):
        pytest.skip("the full Fashion-MNIST is not on this machine")
    (code,) = blocks("python")
    short = code.replace('PRESETS["lenet"]', 'PRESETS["lenet"] | {"epochs": 1}')
    assert short != code

    exec(compile(short, "README.md", "exec"), {})

    epoch, accuracy = capsys.readouterr().out.split()
    assert int(epoch) == 1
    assert float(accuracy) > 0.6
