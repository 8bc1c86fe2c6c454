from __future__ import annotations

from dataclasses import replace

import pytest

from lenet_exp.config import loader
from lenet_exp.config.loader import parse
from lenet_exp.results.lookup import ExperimentResults, read_results
from lenet_exp.results.views.page.details import cost, measurement, space, versions
from tests.labs.swept import Swept


@pytest.fixture
def results(swept_once: Swept) -> ExperimentResults:
    """What the sweep recorded."""
    return read_results(loader.load(swept_once.file), swept_once.root)


def test_the_cost_counts_every_training(results: ExperimentResults) -> None:
    """Trainings by what they were for, their time, and how many images went through a network."""
    told = dict(cost(results))

    n_confirmed = sum(r.key.role == "confirm" for r in results.records)
    n = len(results.records)
    assert told["trainings"] == (
        f"{n}: 1 of the baseline, 3 of the search, {n_confirmed} of the confirmation; {n} complete"
    )
    assert told["images trained on"] == f"about {600 * n:,}: {2 * n} epochs of 300"
    assert dict(cost(replace(results, records=[])))["trainings"] == "none has ended yet"


def test_the_space_is_what_was_searched_and_what_was_not(results: ExperimentResults) -> None:
    """Each hyper-parameter once: what it was drawn from, and what the baseline has."""
    heading, rows = space(results)

    assert heading == "searched"
    by_name = {name: (values, baseline) for name, values, baseline in rows}
    assert len(by_name) == len(rows)
    assert by_name["pooling"] == ("avg or max", "max")
    assert by_name["lr"] == ("0.001 to 0.03, logarithmic", "0.009")
    assert by_name["conv_layers"] == ("1 to 2, whole numbers", "2")
    assert by_name["channels"] == ("fixed", "3-5")
    listed = parse({"name": "l", "run": [{"channels": 12}, {"lr": 0.1}]})
    assert space(replace(results, experiment=listed))[1][0] == ("channels", "12-12, 6-16", "3-5")


def test_the_measurement_says_who_saw_which_images(results: ExperimentResults) -> None:
    """The split, the seeds, the level, and when the test images were looked at."""
    told = dict(measurement(results))

    assert told["images"].startswith("fashion-mnist-mini: 300 to train on, 200 to validate on")
    assert "test images of fashion-mnist-mini were seen only when all networks" in told["who saw what"]
    assert told["level"].startswith("0.05 over all readings")
    assert set(dict(versions(results))) >= {"lenet_exp", "torch", "python"}
