"""The fingerprint of a study (settings that its trials must share to be compared), and its run in MLflow."""

from __future__ import annotations

import getpass
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_exp import __version__
from lenet_exp.base.errors import mask_url
from lenet_exp.base.layout import Layout
from lenet_exp.base.lineage import Lineage
from lenet_exp.config.describe import description
from lenet_exp.config.experiment import Experiment
from lenet_exp.data.images import ImageSet
from lenet_exp.data.split import division
from lenet_exp.results.ablation import ablation_table
from lenet_exp.results.read import own_files
from lenet_exp.tracking.events import SOURCE, DatasetMetadata, StudyMetadata

if TYPE_CHECKING:
    from lenet_exp.results.lookup import ExperimentResults


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
            **source_tags(experiment.name),
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


def study_result(results: ExperimentResults) -> dict[str, Any]:
    """Return ``metrics`` and ``tags`` of the study's own run in MLflow, which say what was found.

    They are those of the champion, or without a confirmation of the best row of the leaderboard. The
    description begins as the page does.
    """
    # Imported late, as the page's other modules are.
    from lenet_exp.results.views.page.answer import answer_of

    experiment, confirmation = results.experiment, results.confirmation
    complete = [row for row in results.leaderboard.plain_rows() if row["state"] == "COMPLETE"]
    champion = confirmation.evaluation.champion if confirmation.evaluation else None
    best = next((row for row in complete if row["config"] == champion), complete[0] if complete else None)
    if best is None:
        return {}
    names = ("val_accuracy", "val_delta", "test_accuracy", "delta")
    label = best["name"] or (best["role"] if best["trial"] is None else f"trial {best['trial']}")
    verdict = "the baseline" if best["role"] == "baseline" else best["verdict"] or ""
    if experiment.ablate:
        rows = ablation_table(experiment, results.records).plain_rows()
        verdict = (
            next((r["verdict"] for r in rows if f"{r['factor']} {r['value']}" == label), None) or verdict
        )
    told = answer_of(results)
    # Without the next steps, which may name a folder of this machine.
    sentences = [*told.sentences, *confirmation.sentences]
    # The outcome first, as MLflow shows only the beginning until it is asked for more.
    note = [
        f"**{experiment.question}**" if experiment.question else "",
        told.verdict,
        "\n".join(f"- {sentence}" for sentence in sentences),
        f"{label}: {description(best)}",
        "*Artifacts* has the page with figures and tables, `report.html`.",
    ]
    return {
        "metrics": {name: round(best[name], 6) for name in names if best[name] is not None},
        "tags": {
            "mlflow.note.content": mask_url("\n\n".join(filter(None, note))),
            "verdict": verdict,
            "best": label,
        },
    }


def source_tags(experiment: str) -> dict[str, str]:
    """Return MLflow's tags for where a run comes from: command, user and, in a checkout, the code's commit.

    Args:
        experiment: Name of the experiment.
    """
    try:
        user = getpass.getuser()  # as MLflow asks; the variable LOGNAME may name somebody else
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        user = "unknown"
    commit = {"mlflow.source.git.commit": name} if (name := _commit()) else {}
    source = {SOURCE: f"lenet-exp sweep {experiment}", "mlflow.source.type": "LOCAL"}
    return {**source, "mlflow.user": user, **commit}


@cache
def _commit() -> str | None:
    """Return the commit of the checkout that this code is in; None if there is none, or no git."""
    folder = Path(__file__).parents[2]
    command = ["git", "-C", str(folder), "rev-parse", "HEAD", "--show-toplevel"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    commit, _, top = answer.stdout.strip().partition("\n")
    # An installed package may lie in the checkout of another project.
    return commit if top and Path(top).resolve() == folder.resolve() else None


def _params(experiment: Experiment) -> dict[str, Any]:
    """Return the parameters that the study's run shows: search settings, data set and epochs."""
    params = experiment.search.model_dump() | {
        "dataset": experiment.data.dataset,
        "validation": experiment.data.validation,
        "epochs": experiment.base["epochs"],
    }
    return params | ({"test_split": "shown after every epoch"} if experiment.watch.test_split else {})
