from pathlib import Path

import optuna
import pytest

from lenet_exp.base.records import RunKey
from lenet_exp.config.hyperparameters import PRESETS, configuration
from lenet_exp.study.storage import open_storage
from lenet_exp.study.trials import RECORD, RESULT, UNKNOWN, has_open, kept_record, read_study
from tests.labs.studies import read_kept, read_records

OWN = kept_record(RunKey("trial", 0, 1), "trial 0", configuration(PRESETS["lenet"]), 1, {})


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(tmp_path)
    optuna.create_study(storage=storage, study_name="e/fixed", direction="maximize")
    return optuna.create_study(storage=storage, study_name="e", direction="maximize")


def test_what_is_still_open_is_no_record_yet(tmp_path: Path, study: optuna.Study) -> None:
    """A running trial is known to be there, and has no row."""
    trial = study.ask()
    trial.set_user_attr(RECORD, OWN)
    assert read_records("e", tmp_path) == []
    assert has_open("e", tmp_path)

    trial.set_user_attr(RESULT, {})
    study.tell(trial, 0.5)

    (record,) = read_records("e", tmp_path) or []
    assert (record.value, record.state) == (0.5, "COMPLETE")
    assert not has_open("e", tmp_path)


def test_a_complete_attempt_without_validation_images_has_no_value(
    tmp_path: Path, study: optuna.Study
) -> None:
    """Optuna must have a number; nobody else sees it."""
    trial = study.ask()
    trial.set_user_attr(RECORD, OWN)
    trial.set_user_attr(RESULT, {})
    study.tell(trial, UNKNOWN)

    (record,) = read_records("e", tmp_path) or []
    assert record.value is None


def test_nothing_is_read_from_nothing(tmp_path: Path, study: optuna.Study) -> None:
    """An experiment, or a storage, that is not there has no records, no identity and keeps nothing."""
    for name, root in (("other", tmp_path), ("e", tmp_path / "none")):
        assert read_records(name, root) is None
        assert read_study(name, root) is None
        assert read_kept(name, root) == {}
        assert not has_open(name, root)
