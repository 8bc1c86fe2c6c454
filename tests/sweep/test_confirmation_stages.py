"""The confirmation where it is cut off, lacks something, or finds its number of seeds itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lenet_exp.base.errors import ConfigError, DataError, NoResultError, SweepInterruptedError
from lenet_exp.base.layout import Layout
from lenet_exp.base.records import RunKey
from lenet_exp.base.seeding import derive_seed
from lenet_exp.cli.replay import replay
from lenet_exp.config import loader
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data import testset
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions, Machine
from lenet_exp.execution.resources import WorkerPlan
from lenet_exp.results.evaluation import PLAN, READINGS, ConfirmationPlan, read_evaluations
from lenet_exp.study.study import open_study
from lenet_exp.sweep import confirmation
from lenet_exp.sweep.confirmation import Confirmation
from lenet_exp.sweep.finalists import ensure_there_are_some
from lenet_exp.sweep.recovery import sync_experiment
from lenet_exp.sweep.run import Request, run_main_job
from lenet_exp.tracking.spool import Spool
from tests.labs.places import MINI_FOLDER
from tests.labs.plans import CONFIRMED, EXPERIMENT_MADE, plan
from tests.labs.studies import read_kept, read_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The same experiment, its images where they always are."""
    path = tmp_path / "e.toml"
    path.write_text(CONFIRMED.replace('"images"', json.dumps(str(MINI_FOLDER))))
    return path


def request(path: Path, root: Path, **settings: Any) -> Request:
    overrides = settings.pop("overrides", ["confirm.top=1", "confirm.seeds=2"])
    return Request(loader.load(path, overrides), root, device="cpu", **settings)


@pytest.mark.slow
def test_a_crash_between_training_and_reading_goes_on_where_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same finalists, nothing trained twice, and the record says that the files were opened twice."""

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(testset, "read_test_split", cut_off)
        with pytest.raises(SweepInterruptedError, match="run the same command again"):
            run_main_job(request(path, tmp_path))
    frozen = read_kept("confirmed", tmp_path).get(PLAN)
    trained = [r for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"]
    (noted,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert (noted.completed, len(noted.begun), len(trained)) == (None, 1, 4)

    # Another budget changes what would be best, and not what was frozen.
    run_main_job(request(path, tmp_path, overrides=["confirm.top=3", "confirm.seeds=9", "search.trials=3"]))

    (reading,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert reading.completed
    assert (len(reading.begun), reading.again) == (2, False)
    assert read_kept("confirmed", tmp_path).get(PLAN) == frozen
    assert [r for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"] == trained
    assert "champion: " in capsys.readouterr().out

    other = tmp_path / "other"
    shutil.copytree(MINI_FOLDER, other)
    run_main_job(
        request(
            path,
            tmp_path,
            search=False,
            dataset="other",
            overrides=["confirm.seeds=2", "confirm.resample=true", f"data.folder={other}"],
        )
    )
    (carried,) = read_evaluations(read_kept("confirmed@other", tmp_path).get(READINGS))
    table = pd.read_csv(tmp_path / "confirmed@other" / "leaderboard.csv")
    assert [one.config for one in carried.plan.finalists] == [one.config for one in reading.plan.finalists]
    assert set(table["config"]) == {one.config for one in carried.plan.everyone}
    assert sorted(table["role"]) == ["baseline", "run"]
    assert table["n_seeds"].tolist() == [2, 2]
    assert table["verdict"].dropna().tolist() == [carried.verdicts[0]["verdict"]]
    assert reading.curse.startswith("val_accuracy ")
    assert carried.curse == ""  # its val_accuracy in the search was of other images
    assert carried.plan.train_on == "train, resampled"
    spool = Spool(tmp_path / "confirmed@other" / "spool")
    logs = [log for score in carried.scores if (log := spool.read(RunKey.from_stem(score.run)))]
    tags = {(log.metadata["seed"], log.metadata["tags"]["lenet_exp.division_seed"]) for log in logs}
    assert sorted(tags) == sorted((seed, str(derive_seed(seed, "division"))) for seed in carried.plan.seeds)
    # The study alone says on which images it was trained.
    spool.path(carried.scores[0].run).unlink()
    there = loader.load(path).with_dataset("other", str(other))
    sync_experiment(there, tmp_path)
    restored = spool.read(RunKey.from_stem(carried.scores[0].run))
    assert restored is not None
    assert restored.metadata["tags"]["lenet_exp.train_on"] == "train, resampled"
    assert replay(there, tmp_path, carried.scores[0].run, say=lambda _: None).identical


def test_nothing_is_confirmed_before_the_search_has_ended(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep whose time is over leaves no plan behind; a confirmation of nothing is refused."""
    run_main_job(request(path, tmp_path, timeout_s=0.001))

    assert "the time is up: not confirmed, as the search has not finished" in capsys.readouterr().err
    assert read_kept("confirmed", tmp_path).get(PLAN) is None
    with pytest.raises(NoResultError, match="no finished trial to confirm"):
        run_main_job(request(path, tmp_path, search=False))
    with pytest.raises(NoResultError, match="was never run under"):
        run_main_job(request(path, tmp_path / "elsewhere", search=False))
    ablation = loader.parse({"name": "ablated", "ablate": {"pooling": ["avg"]}})
    with pytest.raises(ConfigError, match=r"'ablated' is an ablation, which .* has no finalists"):
        ensure_there_are_some(ablation, tmp_path)


@pytest.mark.parametrize(
    ("lacking", "reason", "to_do"),
    [
        ("baseline", "timeout: not done after 5 s", "raise --trial-timeout"),
        ("baseline", "diverged: loss is nan", r"change the \[baseline\]"),
        ("trial 1", "timeout: not done after 5 s", "raise --trial-timeout"),
    ],
)
def test_no_reading_is_spent_while_a_network_lacks_that_the_verdict_needs(
    mini: ImageSet, tmp_path: Path, lacking: str, reason: str, to_do: str
) -> None:
    """One seed of the baseline is enough, and the study has no reading on record after it."""
    study = open_study(EXPERIMENT_MADE, tmp_path)

    def train(trainings: Sequence[FixedTraining]) -> bool:
        for training in trainings:
            attempt = study.ask_fixed(training)
            assert attempt is not None
            if training.label == f"{lacking}, seed 2":
                study.tell(attempt.key, "PRUNED", result={"reason": reason, "trial_timeout_s": 5.0})
            else:
                study.tell(attempt.key, "COMPLETE", 0.5)
        return True

    conditions = Conditions(
        EXPERIMENT_MADE,
        mini,
        Machine(("cpu",), "test", "float32", "2"),
        Layout.of(tmp_path, "e"),
        WorkerPlan(1, 1, "as asked"),
    )
    spool, executor = Spool(tmp_path / "spool"), LocalExecutor()
    confirmed = Confirmation(conditions, study, spool, executor, train, lambda: None, lambda _: None)

    with pytest.raises(NoResultError, match=rf"the test split is not read, as 1 of 9 trainings.*; {to_do}"):
        confirmed.run(lambda: plan().finalists)

    assert study.kept(PLAN) is not None
    assert study.kept(READINGS) is None


def test_missing_test_files_are_told_before_the_search(path: Path, tmp_path: Path) -> None:
    """Exit code 4, no study, and what to do; without a confirmation nobody needs them."""
    images = tmp_path / "images"
    images.mkdir()
    for file in MINI_FOLDER.glob("train*"):
        shutil.copy(file, images)
    overrides = [f"data.folder={images}", "data.dataset=own", "search.trials=0"]

    with pytest.raises(
        DataError, match=r"holds no t10k-images.*leave the confirmation out with --no-confirm"
    ):
        run_main_job(request(path, tmp_path, overrides=overrides))

    assert read_records("confirmed", tmp_path) is None


@pytest.mark.slow
def test_with_auto_seeds_one_reading_is_made_of_the_second_stage(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off between the stages, it goes on with the seeds it had, and reads on none of the first stage."""
    overrides = ["confirm.top=1", "confirm.seeds=auto", "confirm.precision=0.5", "data.limit=40"]

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(confirmation, "second_stage", cut_off)
        with pytest.raises(SweepInterruptedError, match="run the same command again"):
            run_main_job(request(path, tmp_path, overrides=overrides))
    begun = ConfirmationPlan.from_dict(read_kept("confirmed", tmp_path)[PLAN])
    assert capsys.readouterr().err.count("8 fresh seeds each to see how they vary") == 1

    run_main_job(request(path, tmp_path, overrides=overrides))

    (reading,) = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    trained = {r.seed for r in read_records("confirmed", tmp_path) or [] if r.key.role == "confirm"}
    assert len(reading.plan.seeds) == 5
    assert not {score.seed for score in reading.scores} & set(begun.seeds)
    assert trained == {*begun.seeds, *reading.plan.seeds}
    assert reading.plan.first_stage is not None
    assert "an interval of ±0.5 needs 5 seeds" in capsys.readouterr().err

    overrides[1] = "confirm.seeds=6"
    run_main_job(request(path, tmp_path, overrides=overrides, search=False, again=True))

    _, later = read_evaluations(read_kept("confirmed", tmp_path).get(READINGS))
    assert later.plan.seeds[:5] == reading.plan.seeds
    assert len(set(later.plan.seeds) - set(begun.seeds)) == 6
    run_main_job(request(path, tmp_path, overrides=overrides))
    assert "settings are new since then" not in capsys.readouterr().err
