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
        records: Of whatever role; those of completed trials and runs count.
        baseline: Hash of the baseline's configuration.
        top: How many at most.
    """
    found: dict[str, Finalist] = {}
    complete = [r for r in records if r.key.role in ("trial", "run") and r.value is not None]
    # Of equals the earlier one, which is also the one that was trained and not told.
    for record in sorted(complete, key=lambda r: (-(r.value or 0.0), r.key.trial)):
        if record.config != baseline:
            one = Finalist(record.configuration, record.label, record.value)
            found.setdefault(record.config, one)
    return list(found.values())[:top]


def chosen(
    experiment: Experiment, source: Experiment, root: Path, storage: str | None = None
) -> Sequence[Finalist]:
    """Return what an experiment confirms, the best first.

    Args:
        experiment: Its own best, if it is the source; else what the source confirmed or would.
        source: That was searched below ``root``.
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
    """Raise unless the experiment was searched below ``root`` and has found something.

    Raises:
        NoResultError: With what to do about it.
    """
    from lenet_exp.study.trials import read_study

    study = read_study(source.name, root, storage)
    if study is None:
        raise NoResultError(f"{source.name!r} was never run under {root}; run: lenet-exp sweep")
    baseline = source.baseline_configuration.id
    if not best_finalists(study.records, baseline, 1) and not study.kept.get(PLAN):
        raise NoResultError(f"{source.name!r} has no finished trial to confirm; give the sweep more trials")


def on_dataset(experiment: Experiment, dataset: str | None, folder: str | None = None) -> Experiment:
    """Return the experiment, or the one that carries what it found over to another data set.

    Args:
        experiment: What was searched.
        dataset: None for its own.
        folder: Where the other data set's files lie, if the user said so.

    Raises:
        ConfigError: If a data set cannot have this name.
    """
    if dataset is None or dataset == experiment.data.dataset:
        return experiment
    from lenet_exp.data.datasets import DATASETS

    # The file names the folder of its own data set; one that is known everywhere does not lie there.
    own = None if dataset in DATASETS else experiment.data.folder
    try:
        return experiment.with_dataset(dataset, folder or own)
    except ValueError as error:
        raise ConfigError(f"--dataset {error}") from None
