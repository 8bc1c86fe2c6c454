"""What makes a study this study, and what its own run in MLflow says of it."""

from __future__ import annotations

import hashlib
from typing import Any

from lenet_exp import __version__
from lenet_exp.base.errors import mask_url
from lenet_exp.base.layout import Layout
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division
from lenet_exp.results.read import own_files
from lenet_exp.tracking.events import DatasetMetadata, StudyMetadata


def fingerprint(experiment: Experiment, images: ImageSet) -> dict[str, Any]:
    """Return what makes a study this study: with any of it changed, its trials could not be compared.

    Args:
        experiment: With its precision resolved.
        images: The training images.
    """
    data, search, training = experiment.data, experiment.search, experiment.training
    split = division(data, images.open()[1])
    return {
        "objective": "val_accuracy after the last epoch",
        "space": experiment.search_space.describe(),
        "baseline": experiment.baseline_configuration.to_dict(),
        "compile": training.compile,
        # Left out where it is as in studies from before there was a choice.
        **({"kernels": training.kernels} if training.kernels != "fast" else {}),
        "data": {
            "dataset": data.dataset,
            "digest": images.digest,
            "resize": data.resize,
            "validation": data.validation,
            "limit": data.limit,
            "seed": data.seed,
            # Should the division itself ever change, those three would not tell.
            "split": split.digest[:12],
        },
        "search": search.model_dump(exclude={"trials"}),
    }


def study_metadata(experiment: Experiment, layout: Layout, images: ImageSet) -> StudyMetadata:
    """Return what the study's own run says.

    Args:
        experiment: With its precision resolved.
        layout: Where its files are.
        images: The training images.
    """
    files = (layout.experiment_file, layout.leaderboard, layout.readings, layout.overview, layout.report)
    return StudyMetadata(
        # Two folders may record the same experiment on one server, and are two studies there.
        study=f"{experiment.name}-{hashlib.sha256(str(layout.root).encode()).hexdigest()[:8]}",
        experiment=experiment.name,
        params=_params(experiment),
        tags={"mlflow.note.content": mask_url(experiment.question), "version": __version__},
        dataset=DatasetMetadata(experiment.data.dataset, images.digest, str(images.images)),
        files=tuple(map(layout.relative, (*files, *own_files(experiment, layout)))),
        image_size=images.image_size,
        fingerprint=fingerprint(experiment, images),
    )


def _params(experiment: Experiment) -> dict[str, Any]:
    """Return what the study's run shows as its parameters: how it searched and on what."""
    params = experiment.search.model_dump() | {
        "dataset": experiment.data.dataset,
        "validation": experiment.data.validation,
        "epochs": experiment.base["epochs"],
    }
    return params | ({"test_split": "shown after every epoch"} if experiment.watch.test_split else {})
