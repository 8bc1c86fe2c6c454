"""Checks of what could keep a sweep from running and of what crashes and outages have left, and repairs.

Nothing is ever deleted, and a second repair changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from lenet_exp import __version__
from lenet_exp.base.errors import ConfigError, DiskError, LenetExpError, StoreError, UnreachableError
from lenet_exp.base.files import check_database, lock, lock_holder, move_aside
from lenet_exp.base.layout import Layout, artifacts, folder_name, layouts, mlflow_db, study_db
from lenet_exp.base.messages import counted, repair_command, say, step
from lenet_exp.config import loader
from lenet_exp.config.experiment import Experiment
from lenet_exp.data import datasets, sources
from lenet_exp.data.images import training_images
from lenet_exp.execution import resources
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.protocol import Conditions
from lenet_exp.execution.resources import MIN_FREE_BYTES
from lenet_exp.results.lookup import read_related
from lenet_exp.study import storage
from lenet_exp.study.study import Study, open_study
from lenet_exp.study.trials import has_open
from lenet_exp.sweep import run
from lenet_exp.sweep.recovery import rebuild_study, reconcile, sync_experiment
from lenet_exp.sweep.salvage import damage
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool
from lenet_exp.tracking.uploader import lacking, not_whole
from lenet_exp.training.weights import damaged_weights, restore_weights

#: Libraries whose versions are shown.
LIBRARIES = ("torch", "torchvision", "mlflow", "optuna", "pandas", "numpy", "pydantic")
#: Exit codes other than 0, in the order in which to deal with them.
SEVERITY = (9, 5, 2, 10, 7, 4, 3, 8)


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: Subject of the check, such as ``disk``, ``study`` or the folder of an experiment.
        text: Finding in one line, with what to do if something is wrong.
        exit_code: Exit code of the error that was found; 0 if all is well.
        repaired: True if something was wrong and has been repaired.
    """

    name: str
    text: str
    exit_code: int = 0
    repaired: bool = False


def examine(
    root: Path, *, tracking_uri: str | None = None, url: str | None = None, repair: bool = False
) -> Iterator[Check]:
    """Check the machine, the stores and each experiment, and yield each result as soon as it is known.

    Args:
        root: Folder that holds all results; it need not exist.
        tracking_uri: URI of the MLflow store; None for ``mlflow.db`` in ``root``.
        url: URL of the PostgreSQL database that holds the studies; None for ``study.db`` in ``root``.
        repair: True to repair what can be repaired.
    """
    root = root.absolute()
    for check in (_installation, _device, _workers, _data):
        yield _run_check(check.__name__.strip("_"), check)
    yield _run_check("disk", partial(_disk, root))
    repair_study = partial(_repair_study, root) if repair and not url else None
    yield _run_check("study", partial(_study, root, url), repair_study)
    repair_mlflow = partial(_repair_mlflow, root) if repair and not tracking_uri else None
    mlflow = _run_check("mlflow", partial(_mlflow, root, tracking_uri), repair_mlflow)
    yield mlflow
    remedy = repair_command(root, url, tracking_uri)
    for layout in layouts(root):
        repair_experiment = partial(_repair_experiment, layout, tracking_uri, url) if repair else None
        check_runs = partial(_runs, layout, tracking_uri, remedy) if not mlflow.exit_code else list
        yield _run_check(
            layout.folder, partial(_experiment, layout, url, remedy, check_runs), repair_experiment
        )


def worst(checks: list[Check]) -> int:
    """Return the exit code of the most urgent check; 0 if all is well.

    Example:
        >>> worst([Check("data", "", 4), Check("study", "", 9), Check("disk", "")])
        9
    """
    codes = {check.exit_code for check in checks}
    return next((code for code in SEVERITY if code in codes), 0)


def _run_check(name: str, check: Callable[[], str], repair: Callable[[], str] | None = None) -> Check:
    """Run a check; if it finds something wrong, repair that and check once more.

    Args:
        name: Subject of the check.
        check: Function that returns its finding, or raises an error that says what is wrong.
        repair: Function that repairs it and says what it did; None to repair nothing.
    """
    try:
        with step(f"checking {name}"):
            return Check(name, check())
    except LenetExpError as error:
        if repair is None:
            return Check(name, str(error), error.exit_code)
    try:
        with step(f"repairing {name}"):
            done = repair()
        with step(f"checking {name} again"):
            return Check(name, f"{done}; now {check()}", repaired=True)
    except LenetExpError as error:
        return Check(name, str(error), error.exit_code)


def _installation() -> str:
    versions = [f"lenet_exp {__version__}", f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            raise ConfigError(f"{name} is not installed; install lenet_exp again") from None
    return ", ".join(versions)


def _device() -> str:
    executor = LocalExecutor()
    try:
        machine = executor.probe("auto")
    finally:
        executor.close()
    return f"{machine.name} ({', '.join(machine.devices)}), which computes in {machine.precision}"


def _workers() -> str:
    chosen = resources.plan(resources.measure())
    threads = os.environ.get("OMP_NUM_THREADS")
    fixed = f"; OMP_NUM_THREADS is {threads}" if threads else ""
    each = counted(chosen.threads, "thread")
    return f"{chosen.workers} at once with {each} each on the CPU ({chosen.reason}){fixed}"


def _data() -> str:
    available = [
        name
        for name, dataset in datasets.DATASETS.items()
        if sources.within_reach(dataset, dataset.train, folder=None)
    ]
    missing = sorted(set(datasets.DATASETS) - set(available))
    note = f"; downloaded when first used: {', '.join(missing)}" if missing else ""
    return f"on this machine: {', '.join(available) or 'none'}{note}"


def _disk(root: Path) -> str:
    folder = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(folder, os.W_OK):
        raise DiskError(f"{folder} cannot be written; choose another folder with --root")
    free_bytes = shutil.disk_usage(folder).free
    text = f"{free_bytes / 1e9:.1f} GB free at {folder}"
    if free_bytes < MIN_FREE_BYTES:
        raise DiskError(
            f"only {text}, and a sweep needs {MIN_FREE_BYTES / 1e9} GB;"
            " make room, or choose another folder with --root"
        )
    return text


def _study(root: Path, url: str | None) -> str:
    studies = storage.read_storage(root, url)
    path = url or study_db(root)
    if studies is None:
        lost = [layout.folder for layout in layouts(root) if not Spool(layout.spool).lineage().is_empty]
        if lost:
            raise StoreError(
                f"{path} is missing or empty, with the studies of {', '.join(lost)}; put it back, "
                f"or run '{repair_command(root)}'"
            )
        return f"no {path} yet"
    return f"{path}, {len(studies.get_all_studies())} studies"


def _mlflow(root: Path, tracking_uri: str | None) -> str:
    uri, artifact_root = store.locate(tracking_uri, root)
    if tracking_uri is None:
        check_database(mlflow_db(root))
    if tracking_uri is None and not mlflow_db(root).exists():
        is_uploaded = any(Spool(layout.spool).run_ids() for layout in layouts(root))
        note = "; unless the runs are on a server, run 'lenet-exp sync'" if is_uploaded else ""
        return f"no {mlflow_db(root)} yet{note}"
    store.check_reachable(uri, artifact_root)
    return f"{tracking_uri or mlflow_db(root)} answers"


def _experiment(layout: Layout, url: str | None, remedy: str, check_runs: Callable[[], object]) -> str:
    """Check an experiment; ``check_runs`` looks at its runs in MLflow, if that answers."""
    layout.check_links()
    holder = lock_holder(layout.lock)
    if holder:
        return f"a sweep is at work: {holder}"
    spool = Spool(layout.spool)
    study_log = spool.study()
    name = study_log.metadata.experiment if study_log else loader.load(layout.experiment_file).name
    if folder_name(name) != layout.folder:
        name = loader.load(layout.experiment_file).name
    study = read_related(name, layout.root, url)
    is_open = has_open(name, layout.root, url)
    wrong = damage(study.records, spool, name, study.lineage.id) if study else {}
    if wrong:
        first = next(iter(wrong.values())).partition("; ")[0]
        others = f", and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
        raise StoreError(f"{first}{others}; '{remedy}' restores what the study has")
    if study and (lost := damaged_weights(study.records, layout, study.kept)):
        others = f" and {counted(len(lost) - 1, 'other')}" if len(lost) > 1 else ""
        raise StoreError(
            f"the weights of {lost[0].label}{others} are missing or damaged; '{remedy}' trains them again"
        )
    if study and study_log and (lacks := sorted(study_log.kept.keys() - study.kept.keys())):
        raise StoreError(f"the study lacks {lacks[0]}, which the spool has; '{remedy}' restores it")
    if study_log is None and not spool.stems():
        return "no sweep has started"
    if study_log is None or study_log.end is None or is_open:
        raise StoreError(f"a sweep was cut off; run it again to go on, or run '{remedy}'")
    pending = spool.pending()
    if pending:
        raise UnreachableError(
            f"{len(pending)} run{'s are' if len(pending) > 1 else ' is'} not completely in MLflow;"
            f" run '{remedy}' to upload the rest"
        )
    check_runs()
    return f"{len(spool.stems()) - 1} attempts, all ended and in MLflow"


def _runs(layout: Layout, tracking_uri: str | None, remedy: str) -> None:
    """Raise UnreachableError if the experiment's runs are not completely in MLflow."""
    spool, path = Spool(layout.spool), mlflow_db(layout.root)
    if tracking_uri is None and not path.exists():
        lacks = dict.fromkeys(spool.stems(), f"there is no {path}")
    else:
        lacks = lacking(spool, store.locate(tracking_uri, layout.root)[0])
    if lacks:
        raise UnreachableError(
            f"{not_whole(lacks)}; run '{remedy}' to upload what can be uploaded,"
            " or name the server that has the runs with --tracking-uri"
        )


def _repair_study(root: Path) -> str:
    with ExitStack() as locks:
        experiments = layouts(root)
        for layout in experiments:
            locks.enter_context(lock(layout.lock))
        path = study_db(root)
        if path.exists():
            _refuse_other_version(partial(storage.read_storage, root))
        # Rebuilt in another folder and moved when complete, so that a repair that is cut off changes nothing.
        with tempfile.TemporaryDirectory(prefix=".rebuild-", dir=root) as folder:
            rebuilt = storage.open_storage(Path(folder))
            n_attempts = 0
            for layout in experiments:
                name = _own_experiment(layout).name
                n_attempts += rebuild_study(Spool(layout.spool), rebuilt, name)[0]
            storage.close(rebuilt)
            moved = f"{path} moved to {move_aside(path)}, and " if path.exists() else ""
            study_db(Path(folder)).rename(path)
    return f"{moved}rebuilt from the spool with {n_attempts} attempts"


def _refuse_other_version(read: Callable[[], object]) -> None:
    """Raise the error of ``read`` if the store is only of another version: a rebuild would lose its data."""
    try:
        read()
    except StoreError as error:
        if "has schema" in str(error):
            raise


def _repair_mlflow(root: Path) -> str:
    path = mlflow_db(root)
    try:
        return _mlflow(root, None)
    except StoreError as error:  # but one that is only locked or slow stays where it is
        if "has schema" in str(error):
            raise
    moved_to = move_aside(path)
    store.prepare(store.local_uri(root), artifacts(root))
    for layout in layouts(root):
        if Spool(layout.spool).study():
            sync_experiment(_own_experiment(layout), root)
    return f"{path} moved to {moved_to}, and rebuilt from the spool"


def _repair_experiment(layout: Layout, tracking_uri: str | None, url: str | None) -> str:
    experiment, root = _own_experiment(layout), layout.root
    with lock(layout.lock), run.storage_lock(url, experiment.name):
        spool = Spool(layout.spool)
        done = _restore_if_wrong(experiment, root, url, spool)
        study = open_study(experiment, root, url)
        study.when_kept(spool.keep)
        reconcile(study, spool, layout)
        done += _restore_weights(experiment, layout, study)
        study.close()
        study_log = spool.study()
        if study_log and study_log.end is None:
            spool.end_study("PRUNED", "interrupted")
    report = sync_experiment(experiment, root, tracking_uri=tracking_uri, storage=url)
    if report.problems or report.lacking:
        raise UnreachableError(report.problems[0] if report.problems else report.what_is_lacking)
    return f"{done}ended what was cut off, uploaded {counted(report.n_uploaded, 'run')}"


def _own_experiment(layout: Layout) -> Experiment:
    """Return the experiment of a folder, from the copy of its file.

    Raises:
        ConfigError: If the copy is lost, damaged or another experiment's.
    """
    advice = "copy the experiment's file to that place, then run the same command again"
    try:
        experiment = loader.load(layout.experiment_file)
    except ConfigError as error:
        raise ConfigError(f"{error}; {advice}") from None
    if folder_name(experiment.name) != layout.folder:
        raise ConfigError(f"{layout.experiment_file} is that of {experiment.name!r}; {advice}")
    return experiment


def _restore_weights(experiment: Experiment, layout: Layout, study: Study) -> str:
    """Train the networks again whose weights are missing or damaged; say so."""
    lost = damaged_weights(study.records(), layout, study.all_kept())
    if not lost:
        return ""
    executor, images = LocalExecutor(), training_images(experiment.data)
    try:
        machine, plan = executor.probe("auto"), resources.plan(resources.measure(), 1)
        conditions = Conditions(experiment.with_precision(machine.precision), images, machine, layout, plan)
        for record in lost:
            say(restore_weights(record, record.train_on, conditions, executor, study.all_kept(), study.keep))
    finally:
        executor.close()
    return f"trained {counted(len(lost), 'network')} again; "


def _restore_if_wrong(experiment: Experiment, root: Path, url: str | None, spool: Spool) -> str:
    """Restore the study from the spool if it is damaged, or not the one of the spool; say so."""
    name = experiment.name
    try:
        if read_related(name, root, url):
            open_study(experiment, root, url).close()  # Optuna reads rows that we do not
    except StoreError as error:
        if spool.lineage().is_empty:
            raise
        _refuse_other_version(partial(storage.read_storage, root, url))
        studies = storage.open_storage(root, url)
        n_attempts, aside = rebuild_study(spool, studies, name)
        studies.engine.dispose()
        kept = f", kept the other as study {aside!r}" if aside else ""
        reason = str(error).partition("; ")[0]
        return f"{reason}: restored it from the spool with {counted(n_attempts, 'attempt')}{kept}; "
    return ""
