"""Which configurations are confirmed: the best of a search, or those of another experiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.evaluation import PLAN, ConfirmationPlan, Finalist
from lenet_exp.study.records import TrialRecord


def best_finalists(records: Iterable[TrialRecord], baseline: str, top: int) -> list[Finalist]:
    """Return the best configurations by validation accuracy, each once, the baseline's left out.

    Args:
        records: Attempts of all roles; only completed trials and runs are considered.
        baseline: Hash of the baseline's configuration.
        top: Largest number of finalists.
    """
    by_config: dict[str, Finalist] = {}
    complete = [r for r in records if r.key.role in ("trial", "run") and r.value is not None]
    # Among equals the earliest comes first: it was trained, and its duplicates only have its value.
    for record in sorted(complete, key=lambda r: (-(r.value or 0.0), r.key.trial)):
        if record.config != baseline:
            finalist = Finalist(record.configuration, record.label, record.value)
            by_config.setdefault(record.config, finalist)
    return list(by_config.values())[:top]


def chosen(
    experiment: Experiment, source: Experiment, root: Path, storage: str | None = None
) -> Sequence[Finalist]:
    """Return the finalists of an experiment, the best first.

    Args:
        experiment: The experiment that confirms. If it is ``source`` itself, its own best are the finalists;
            if not, those that ``source`` has confirmed, or would confirm.
        source: The experiment that was searched below ``root``.
        root: Folder of everything that runs write.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.
    """
    from lenet_exp.study.trials import read_study

    study = read_study(source.name, root, storage)
    if study is None:
        return []
    top = experiment.confirm.top
    if experiment.name != source.name and (kept := study.kept.get(PLAN)):
        return ConfirmationPlan.from_dict(kept).finalists[:top]
    return best_finalists(study.records, experiment.baseline_configuration.id, top)


def ensure_there_are_some(source: Experiment, root: Path, storage: str | None = None) -> None:
    """Make sure that the experiment was searched below ``root`` and has a finalist.

    Args:
        source: The experiment.
        root: Folder of everything that runs write.
        storage: URL of the studies' storage in PostgreSQL; None for the file below ``root``.

    Raises:
        NoResultError: If it was never run, or has no completed trial.
    """
    from lenet_exp.study.trials import read_study

    study = read_study(source.name, root, storage)
    if study is None:
        raise NoResultError(f"{source.name!r} was never run under {root}; run: lenet-exp sweep")
    baseline = source.baseline_configuration.id
    if not best_finalists(study.records, baseline, 1) and not study.kept.get(PLAN):
        raise NoResultError(f"{source.name!r} has no finished trial to confirm; give the sweep more trials")


def on_dataset(experiment: Experiment, dataset: str | None, folder: str | None = None) -> Experiment:
    """Return the experiment itself, or the one that confirms its finalists on another data set.

    Args:
        experiment: The experiment that was searched.
        dataset: Name of the data set; None for the experiment's own.
        folder: Folder with the other data set's files; None if the user named none.

    Raises:
        ConfigError: If a data set cannot have this name.
    """
    if dataset is None or dataset == experiment.data.dataset:
        return experiment
    from lenet_exp.data.datasets import DATASETS

    # The experiment's own folder may hold a user's data sets, but not those that this package knows.
    default = None if dataset in DATASETS else experiment.data.folder
    try:
        return experiment.with_dataset(dataset, folder or default)
    except ValueError as error:
        raise ConfigError(f"--dataset {error}") from None
