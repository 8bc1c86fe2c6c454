"""The fingerprint of a study (settings that its trials must share to be compared), and its run in MLflow."""

from __future__ import annotations

from typing import Any

from lenet_exp import __version__
from lenet_exp.base.errors import mask_url
from lenet_exp.base.layout import Layout
from lenet_exp.base.lineage import Lineage
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division
from lenet_exp.results.read import own_files
from lenet_exp.tracking.events import DatasetMetadata, StudyMetadata


def fingerprint(experiment: Experiment, images: ImageSet) -> dict[str, Any]:
    """Return the settings and the data that all trials of a study must share, as values ready for JSON.

    A study is never continued with another fingerprint, because its trials could not be compared.

    Args:
        experiment: Experiment whose precision is no longer ``auto``.
        images: Training images, those of the validation split included.
    """
    data, search, training = experiment.data, experiment.search, experiment.training
    split = division(data, images.open()[1])
    return {
        "objective": "val_accuracy after the last epoch",
        "space": experiment.search_space.describe(),
        "baseline": experiment.baseline_configuration.to_dict(),
        "compile": training.compile,
        # The default is left out, as studies from before there was a choice do not have the key.
        **({"kernels": training.kernels} if training.kernels != "fast" else {}),
        "data": {
            "dataset": data.dataset,
            "digest": images.digest,
            "resize": data.resize,
            "validation": data.validation,
            "limit": data.limit,
            "seed": data.seed,
            # The values above would not show that the code that divides the images has changed.
            "split": split.digest[:12],
        },
        "search": search.model_dump(exclude={"trials"}),
    }


def study_metadata(
    experiment: Experiment, layout: Layout, images: ImageSet, lineage: Lineage
) -> StudyMetadata:
    """Return name, parameters, tags and files of the study's own run in MLflow.

    Args:
        experiment: Experiment whose precision is no longer ``auto``.
        layout: Paths of the experiment's files.
        images: Training images, those of the validation split included.
        lineage: Id of the study, and the sweeps that wrote to it.
    """
    files = (layout.experiment_file, layout.leaderboard, layout.readings, layout.figures, layout.report)
    return StudyMetadata(
        # The same experiment below two roots is two studies, even on one MLflow server.
        study=lineage.id,
        experiment=experiment.name,
        params=_params(experiment),
        tags={
            "mlflow.note.content": mask_url(experiment.question),
            "version": __version__,
            "sweep": lineage.sweeps[-1] if lineage.sweeps else None,
        },
        dataset=DatasetMetadata(experiment.data.dataset, images.digest, str(images.images)),
        files=tuple(map(layout.relative, (*files, *own_files(experiment, layout)))),
        image_size=images.image_size,
        fingerprint=fingerprint(experiment, images),
        sweeps=lineage.sweeps,
    )


def _params(experiment: Experiment) -> dict[str, Any]:
    """Return the parameters that the study's run shows: search settings, data set and epochs."""
    params = experiment.search.model_dump() | {
        "dataset": experiment.data.dataset,
        "validation": experiment.data.validation,
        "epochs": experiment.base["epochs"],
    }
    return params | ({"test_split": "shown after every epoch"} if experiment.watch.test_split else {})
