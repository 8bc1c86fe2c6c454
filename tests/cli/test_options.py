from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError
from lenet_exp.cli.options import seconds, workers_count
from lenet_exp.config.loader import experiment_path
from tests.sweep.test_recovery_sync import command


@pytest.mark.parametrize(("text", "expected"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, expected: float) -> None:
    """As people write it."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1d", "nan", "inf", "1e9", "1 m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With the flag that it was given to."""
    with pytest.raises(ConfigError, match="--trial-timeout must be a time above zero such as 90s"):
        seconds(text, "--trial-timeout")


@pytest.mark.parametrize("text", ["8761h", "9999999999", "9" * 400 + "h"])
def test_a_duration_beyond_a_year_is_refused(text: str) -> None:
    """It is a mistake, and some systems cannot wait that long."""
    with pytest.raises(ConfigError, match="--timeout must be above zero and at most 8760h, a year, found"):
        seconds(text)


@pytest.mark.parametrize(("text", "expected"), [("auto", None), ("1", 1), ("64", 64)])
def test_workers_are_a_number_or_chosen(text: str, expected: int | None) -> None:
    """``auto`` leaves it to the machine."""
    assert workers_count(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_no_other_number_of_workers_is_taken(text: str) -> None:
    """The message shows what was found."""
    with pytest.raises(ConfigError, match="--workers must be a whole number above zero or auto, found"):
        workers_count(text)


def test_a_bare_name_is_looked_up_among_the_project_s_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder; a file of one's own comes first."""
    monkeypatch.chdir(tmp_path)

    assert experiment_path(None).name == "fashion_mnist.toml"
    assert experiment_path(Path("quick")).parent.name == "experiments"

    (tmp_path / "quick").write_text("")
    assert experiment_path(Path("quick")) == Path("quick")


@pytest.mark.parametrize(
    ("flag", "url", "variable"),
    [
        ("--storage", "postgresql://***@127.0.0.1:1/x", "LENET_EXP_STORAGE"),
        ("--tracking-uri", "http://***@127.0.0.1:1", "MLFLOW_TRACKING_URI"),
    ],
)
def test_a_command_copied_from_a_message_says_what_was_masked_in_it(
    tmp_path: Path, flag: str, url: str, variable: str
) -> None:
    """Rather than that the server refuses a user of that name."""
    code, _, err = command("doctor", "--root", str(tmp_path), flag, url)

    assert code == 2
    assert err.startswith(f"error: {flag}: the *** stands for user and password")
    assert variable in err
    assert err.count("\n") == 1
