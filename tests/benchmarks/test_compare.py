from pathlib import Path

import pytest

from lenet_exp.config.loader import load
from lenet_exp.data.images import ImageSet
from lenet_exp.study.study import open_study
from tests.benchmarks import compare, driver_cost, usual
from tests.benchmarks.compare import Outcome
from tests.labs.places import PROJECT

EIGHT = PROJECT / "experiments" / "eight.toml"


def test_all_contenders_train_the_same_eight_networks() -> None:
    """The list has seven beside the baseline, all different, and one epoch each."""
    networks = usual.networks(load(EIGHT))

    assert len(networks) == len({network.id for network in networks.values()}) == 8
    assert {network.epochs for network in networks.values()} == {1}


def test_the_usual_loop_trains_and_scores_on_the_same_division(mini: ImageSet) -> None:
    """Each epoch has its loss and both accuracies, all of them shares."""
    experiment = load(EIGHT, ["data.validation=200", "data.limit=300", "baseline.fc_layers=1"])

    (metrics,) = usual.train(experiment.baseline_configuration, mini, experiment.data)

    assert set(metrics) == {"train_loss", "train_accuracy", "val_accuracy"}
    assert 0 < metrics["train_accuracy"] < 1
    assert metrics["val_accuracy"] * 200 == pytest.approx(round(metrics["val_accuracy"] * 200))


def test_the_table_shows_medians_against_ours() -> None:
    """The first contender is what the others are divided by."""
    ours = [Outcome(seconds, seconds - 3, {"baseline": 0.8}) for seconds in (10.0, 11.0, 30.0)]
    theirs = [Outcome(seconds, seconds - 1, {"baseline": 0.9}) for seconds in (54.0, 55.0, 56.0)]
    bench = {"examples_per_s": 28_600.4, "share_of_peak": 0.4321, "workers": 2}

    table = compare.markdown(
        {"ours": ours, "theirs": theirs}, bench, {"driver_ms_at_10": 49.8}, ["a machine"]
    ).splitlines()

    assert table[2] == "| ours | 11.0 | 1.00 | 8.0 | 0.8000 |"
    assert table[3] == "| theirs | 55.0 | 5.00 | 54.0 | 0.9000 |"
    assert table[7:10] == [
        "| `examples_per_s` | 28,600 |",
        "| `share_of_peak` | 0.432 |",
        "| `workers` | 2 |",
    ]
    assert table[13] == "| `driver_ms_at_10` | 49.8 |"
    assert table[-1] == "a machine"


def test_the_driver_is_measured_in_a_study_that_it_takes_for_its_own(mini: ImageSet, tmp_path: Path) -> None:
    """What was put in counts as finished, and the search goes on behind it."""
    settings = ["search.trials=20", "data.dataset=mini", "data.validation=200"]
    experiment = load(EIGHT.with_name("fashion_mnist.toml"), settings)
    driver_cost.fill(experiment, tmp_path, 12)

    assert driver_cost.cost_ms(experiment, tmp_path, mini) > 0

    assert open_study(experiment, tmp_path).n_finished == 20
