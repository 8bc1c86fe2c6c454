import pytest
from hypothesis import given
from hypothesis import strategies as st

from lenet_exp.base.records import METRICS, EpochResult, RunKey


@given(st.sampled_from(["trial", "baseline", "run"]), st.integers(0, 10**6), st.integers(1, 99))
def test_a_key_is_read_back_from_its_file_name(role: str, trial: int, attempt: int) -> None:
    """Names of files lead back to the attempt."""
    key = RunKey(role, trial, attempt)

    assert RunKey.from_stem(key.stem) == key


@pytest.mark.parametrize(
    "stem", ["trial-1-1", "../trial-00001-1", "trial-00001-1.jsonl", "Trial-00001-1", ""]
)
def test_a_name_that_is_no_attempt_s_is_refused(stem: str) -> None:
    """Other files in the folder are not taken for attempts."""
    with pytest.raises(ValueError, match="not the name of an attempt"):
        RunKey.from_stem(stem)


def test_an_epoch_has_the_six_metrics_under_their_one_name() -> None:
    """The metrics of the design, in its spelling."""
    result = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 1000.0, 2.0)

    assert tuple(result.metrics()) == METRICS
    assert set(METRICS) == {
        "train_loss", "train_accuracy", "val_loss", "val_accuracy", "examples_per_s", "train_s",
    }  # fmt: skip


def test_what_is_watched_is_among_the_metrics() -> None:
    """After the six, by its own name."""
    result = EpochResult(1, 0.5, 0.8, 0.4, 0.9, 1000.0, 2.0, watched={"test_accuracy": 0.88})

    assert tuple(result.metrics()) == (*METRICS, "test_accuracy")
    assert EpochResult(**result.to_dict()) == result
