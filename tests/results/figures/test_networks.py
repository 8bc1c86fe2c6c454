from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lenet_exp.base.errors import DataError, NoResultError
from lenet_exp.config import loader
from lenet_exp.data.images import training_images
from lenet_exp.data.split import division
from lenet_exp.results.figures import networks
from lenet_exp.results.figures.chart import Chart, Heat, Images
from lenet_exp.results.figures.networks import activations, confusion, filters, mistakes, see
from lenet_exp.results.lookup import ExperimentResults, read_results
from tests.labs.swept import Swept


@pytest.fixture
def results(swept: Swept) -> ExperimentResults:
    """What a sweep recorded, with an empty cache of data sets."""
    return read_results(loader.load(swept.file), swept.root)


def images_of(chart: Chart | None) -> list[Images]:
    assert chart is not None
    return [mark for panel in chart.panels for mark in panel.marks if isinstance(mark, Images)]


def test_the_figures_show_the_best_network_and_the_baseline_on_validation_images(
    results: ExperimentResults, swept: Swept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their accuracies there are those on record; the test images are not even unpacked."""
    section = results.experiment.data
    pixels, labels = training_images(section).open()  # which puts them into the cache
    validation = division(section, labels).validation
    monkeypatch.setattr(networks, "MAX_IMAGES", 1000)

    seen = see(results)

    assert seen is not None
    best = max((r for r in results.records if r.key.role == "trial"), key=lambda r: r.value or 0)
    baseline = results.find("baseline")
    assert seen.labels == [best.label, "baseline"]
    assert seen.indices.tolist() == validation.tolist()
    assert np.array_equal(seen.truth, labels[validation])
    for network, record in zip(seen.networks, (best, baseline), strict=True):
        assert (network.predicted == seen.truth).mean() == pytest.approx(record.value, abs=0.011)
    assert not list((swept.root.parent / "data-cache").rglob("t10k*"))

    first = confusion(seen).panels[0].marks[0]
    assert isinstance(first, Heat)
    predicted = seen.networks[0].predicted
    by_hand = [[int(((seen.truth == i) & (predicted == j)).sum()) for j in range(10)] for i in range(10)]
    assert [[int(text) for text in row] for row in first.texts] == by_hand
    assert np.isnan(np.diag(first.z)).all()
    surest = images_of(mistakes(seen))[0]
    sure = [c for c, p, t in zip(seen.networks[0].confidence, predicted, seen.truth, strict=True) if p != t]
    assert [float(title.split("\n")[2]) for title in surest.titles] == pytest.approx(
        sorted(sure, reverse=True)[:12], abs=5e-4
    )
    assert [len(mark.images) for mark in images_of(filters(seen))] == [
        record.configuration.channels[0] for record in (best, baseline)
    ]
    shown = images_of(activations(seen))[0]
    assert np.array_equal(shown.images[0], pixels[validation[0]])


def test_what_is_missing_is_told_and_not_downloaded(results: ExperimentResults, swept: Swept) -> None:
    """Images that are not in the cache, and weights that are gone."""
    mnist = results.experiment.data.model_copy(update={"dataset": "mnist", "folder": None})
    elsewhere = replace(results, experiment=results.experiment.model_copy(update={"data": mnist}))
    with pytest.raises(NoResultError, match="the images of mnist are not on this machine"):
        see(elsewhere)
    (swept.home / "checkpoints" / "baseline-00000-1" / "weights.safetensors").unlink()
    with pytest.raises(DataError, match=r"baseline-00000-1.*cannot be read"):
        see(results)
