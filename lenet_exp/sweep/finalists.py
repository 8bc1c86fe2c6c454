"""Which configurations are confirmed: the best of a search, on its own data set or on another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lenet_exp.base.errors import ConfigError, NoResultError
from lenet_exp.config.experiment import Experiment
from lenet_exp.results.evaluation import PLAN, ConfirmationPlan, Finalist
from lenet_exp.study.records import TrialRecord


def best_finalists(records: Iterable[TrialRecord], baseline: str, top: int) -> list[Finalist]:
    """Return the best configurations by validation accuracy, each once, without the baseline.

    Args:
        records: Records of all roles; only complete trials and listed runs are considered.
        baseline: Hash of the baseline's configuration.
        top: Largest number of finalists to return.
    """
    by_config: dict[str, Finalist] = {}
    complete = [r for r in records if r.key.role in ("trial", "run") and r.value is not None]
    # Among equals the earliest comes first: it was trained, and its duplicates only have its value.
    for record in sorted(complete, key=lambda r: (-(r.value or 0.0), r.trial)):
        if record.config != baseline:
            finalist = Finalist(record.configuration, record.label, record.value)
            by_config.setdefault(record.config, finalist)
    return list(by_config.values())[:top]


def chosen(
    experiment: Experiment, source: Experiment, root: Path, storage: str | None = None
) -> Sequence[Finalist]:
    """Return the finalists of an experiment, the best first.

    Args:
        experiment: Experiment that confirms them. If it is ``source`` itself, the finalists are its best
            configurations; else they are those that ``source`` has confirmed, or would confirm.
        source: Experiment that was searched.
        root: Folder that holds all results.
        storage: URL of the PostgreSQL database that holds the studies; None for ``study.db`` in ``root``.
    """
    from lenet_exp.results.lookup import read_related

    study = read_related(source.name, root, storage)
    if study is None:
        return []
    top = experiment.confirm.top
    if experiment.name != source.name and (kept := study.kept.get(PLAN)):
        return ConfirmationPlan.from_dict(kept).finalists[:top]
    return best_finalists(study.records, experiment.baseline_configuration.id, top)


def ensure_there_are_some(source: Experiment, root: Path, storage: str | None = None) -> None:
    """Raise an error unless the experiment has a configuration to confirm.

    Args:
        source: Experiment that was searched.
        root: Folder that holds all results.
        storage: URL of the PostgreSQL database that holds the studies; None for ``study.db`` in ``root``.

    Raises:
        NoResultError: If the experiment was never run below ``root``, or has no complete trial.
    """
    from lenet_exp.results.lookup import read_related

    study = read_related(source.name, root, storage)
    if study is None:
        raise NoResultError(
            f"{source.name!r} was never run under {root}; run '{source.command('sweep', root)}'"
        )
    baseline = source.baseline_configuration.id
    if not best_finalists(study.records, baseline, 1) and not study.kept.get(PLAN):
        raise NoResultError(f"{source.name!r} has no finished trial to confirm; give the sweep more trials")


def on_dataset(experiment: Experiment, dataset: str | None, folder: str | None = None) -> Experiment:
    """Return the experiment itself, or the one that confirms its finalists on another data set.

    Args:
        experiment: Experiment that was searched.
        dataset: Name of the data set to confirm on; None for the experiment's own.
        folder: Folder with the files of ``dataset``; None if the user named none.

    Raises:
        ConfigError: If ``dataset`` is not a possible name of a data set.
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
