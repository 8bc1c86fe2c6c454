from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.base.records import RunKey
from lenet_exp.config import loader
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.tracking.spool import Spool
from tests.labs.swept import Swept


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded."""
    return read_results(loader.load(swept_once.file), swept_once.root)


def test_a_run_has_many_names(results: ExperimentResults) -> None:
    """A trial is found by its number, its label, its files' name and MLflow's id, whole or in part."""
    key = RunKey("trial", 1, 1)
    run_id = results.spool.run_ids()[key]

    for name in ("1", "trial 1", "trial-00001-1", run_id, run_id[:12]):
        assert results.find(name).key == key

    assert results.find("baseline").key.role == "baseline"


def test_the_champion_is_the_registered_one_and_before_that_the_best(
    results: ExperimentResults, tmp_path: Path
) -> None:
    """What the confirmation chose is stronger than the search's own best."""
    best = max((r for r in results.records if r.key.role == "trial"), key=lambda r: r.value or 0)
    assert replace(results, spool=Spool(tmp_path / "none")).find("champion") == best

    study = results.spool.study()
    assert study is not None
    assert study.champion is not None
    assert results.find("champion").key.stem == study.champion.aliases["champion"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("99", "has no run '99'; name a trial's number, a label"),
        ("basline", "did you mean 'baseline'?"),
        ("", "has no run ''"),
    ],
)
def test_an_unknown_run_is_refused(results: ExperimentResults, name: str, message: str) -> None:
    """Whoever names a run that is not there is told what there is."""
    with pytest.raises(ConfigError, match=rf"{message}".replace("?", r"\?")):
        results.find(name)


def test_of_a_training_tried_again_the_last_attempt_is_meant(results: ExperimentResults) -> None:
    """An attempt that failed and was tried again does not hide the one that succeeded."""
    done = results.find("baseline")
    failed = replace(done, key=RunKey("baseline", 7, 2), state="FAIL", result={"retried": True})

    assert replace(results, records=[failed, done]).find("baseline") == done


def test_an_ambiguous_name_is_refused(results: ExperimentResults) -> None:
    """The beginning of an id that two runs share names neither."""
    keys = [RunKey("trial", 0, 1), RunKey("trial", 1, 1)]

    class Twins:
        def run_ids(self) -> dict[RunKey, str]:
            return {key: f"abcdefabcdef{key.trial}" for key in keys}

    with pytest.raises(ConfigError, match="could be 'trial 0', 'trial 1'"):
        replace(results, spool=Twins()).find("abcdefabcdef")  # type: ignore[arg-type]  # only ids matter


def test_a_duplicate_leads_to_the_training_behind_it(results: ExperimentResults) -> None:
    """A trial that was told another's value has that one's epochs."""
    trained = results.find("trial 0")
    twin = replace(trained, key=RunKey("trial", 9, 1), label="trial 9", result={"duplicate_of": 0})

    assert results.original(twin) == trained
    attempt = results.attempt(twin)
    assert attempt is not None
    assert attempt.key == trained.key


def test_the_data_are_those_the_study_was_started_with(swept_once: Swept, data_cache: Path) -> None:
    """A file changed since does not change which images a record is about."""
    now = loader.load(swept_once.file, ["data.validation=100", "data.seed=5"])

    results = read_results(now, swept_once.root)

    assert results.experiment.data.validation == 200
    data = results.experiment.data
    split = division(data, training_images(data).open()[1])
    assert split.digest.startswith(results.fingerprint["data"]["split"])
    assert results.experiment.search_space.describe() == now.search_space.describe()


def test_what_was_never_run_has_no_records(swept_once: Swept, tmp_path: Path) -> None:
    """An experiment that was never started is told so."""
    with pytest.raises(NoResultError, match="'swept' was never run under"):
        read_results(loader.load(swept_once.file), tmp_path)


def test_of_several_seeds_the_first_is_meant(results: ExperimentResults) -> None:
    """The name in the leaderboard finds a network; a training of the confirmation does not stand for it."""
    done = results.find("baseline")
    seeds = [replace(done, label=f"wide, seed {number}", seed=number) for number in (1, 2)]
    confirmed = replace(seeds[0], key=RunKey("confirm", 9, 1))

    assert replace(results, records=[*reversed(seeds), confirmed]).find("wide") == seeds[0]
    with pytest.raises(ConfigError, match="has no run 'wide'"):
        replace(results, records=[confirmed]).find("wide")
    resampled = replace(confirmed, key=RunKey("confirm", 12, 1))
    assert replace(results, records=[resampled, confirmed]).find("wide, seed 1") == resampled  # the later one


def test_an_ablation_has_no_champion(results: ExperimentResults) -> None:
    """It chooses nothing; what can be named is said."""
    asked = results.experiment.model_copy(update={"ablate": {"lr": [0.1]}})
    trained = [replace(results.find("baseline"), label=f"baseline, seed {number}") for number in (1, 2)]

    with pytest.raises(NoResultError, match=r"an ablation has no champion; name one of 'baseline'$"):
        replace(results, experiment=asked, records=trained).find("champion")


def test_without_a_complete_baseline_nothing_is_champion(results: ExperimentResults) -> None:
    """Not the best trial either, as nothing was compared with anything; the line says what to do."""
    records = [
        replace(r, state="PRUNED", value=None) if r.key.role == "baseline" else r for r in results.records
    ]

    with pytest.raises(
        NoResultError, match=r"no champion, as its baseline is not complete; run 'lenet-exp sw"
    ):
        replace(results, records=records).find("champion")


def test_nothing_finished_has_no_champion(results: ExperimentResults) -> None:
    """The best of nothing is nothing."""
    with pytest.raises(NoResultError, match="has no complete trial or listed run; run 'lenet-exp sweep "):
        replace(results, records=[results.find("baseline")]).find("champion")
