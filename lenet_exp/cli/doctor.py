"""What could keep a sweep from running, and what crashes and outages have left behind; and its repair.

Nothing is ever deleted, and repairing twice changes nothing the second time.
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
from lenet_exp.base.files import lock, lock_holder, move_aside
from lenet_exp.base.layout import Layout, artifacts, layouts, mlflow_db, study_db
from lenet_exp.config import loader
from lenet_exp.data import datasets, sources
from lenet_exp.execution import resources
from lenet_exp.execution.executor import LocalExecutor
from lenet_exp.execution.resources import MIN_FREE_BYTES
from lenet_exp.study import storage
from lenet_exp.study.study import open_study
from lenet_exp.study.trials import has_open
from lenet_exp.sweep import run, sync
from lenet_exp.sweep.recovery import rebuild_study, reconcile
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool

#: The libraries whose versions tell most.
LIBRARIES = ("torch", "torchvision", "mlflow", "optuna", "pandas", "numpy", "pydantic")
#: The other codes in the order in which their cause should be mended.
SEVERITY = (9, 5, 2, 10, 7, 4, 3, 8)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: Such as ``disk`` or ``study``.
        text: What was seen, in one line, and what to do if it is wrong.
        exit_code: 0 if it is well.
        repaired: Whether it was wrong and has been mended now.
    """

    what: str
    text: str
    exit_code: int = 0
    repaired: bool = False


def examine(
    root: Path, *, tracking_uri: str | None = None, url: str | None = None, repair: bool = False
) -> Iterator[Check]:
    """Look at everything, and yield what is found as it is found.

    Args:
        root: Folder of everything that runs write; it need not exist.
        tracking_uri: URI of an MLflow store; None for the one below ``root``.
        url: URL of the study's storage in PostgreSQL; None for the file below ``root``.
        repair: Whether to mend what can be mended.
    """
    root = root.absolute()
    for check in (_installation, _device, _workers, _data):
        yield _judged(check.__name__.strip("_"), check)
    yield _judged("disk", partial(_disk, root))
    mend_study = partial(_repair_study, root) if repair and not url else None
    yield _judged("study", partial(_study, root, url), mend_study)
    mend_mlflow = partial(_repair_mlflow, root) if repair and not tracking_uri else None
    yield _judged("mlflow", partial(_mlflow, root, tracking_uri), mend_mlflow)
    for layout in layouts(root):
        mend = partial(_repair_experiment, layout, tracking_uri, url) if repair else None
        yield _judged(layout.folder, partial(_experiment, layout, url), mend)


def worst(checks: list[Check]) -> int:
    """Return the exit code of the finding to mend first; 0 if all is well.

    Example:
        >>> worst([Check("data", "", 4), Check("study", "", 9), Check("disk", "")])
        9
    """
    codes = {check.exit_code for check in checks}
    return next((code for code in SEVERITY if code in codes), 0)


def _judged(what: str, check: Callable[[], str], repair: Callable[[], str] | None = None) -> Check:
    """Return what ``check`` says, after ``repair`` if that is wrong."""
    try:
        return Check(what, check())
    except LenetExpError as error:
        if repair is None:
            return Check(what, str(error), error.exit_code)
    try:
        done = repair()
        return Check(what, f"{done}; now {check()}", repaired=True)
    except LenetExpError as error:
        return Check(what, str(error), error.exit_code)


def _installation() -> str:
    found = [f"lenet_exp {__version__}", f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            raise ConfigError(f"{name} is not installed; install lenet_exp again") from None
    return ", ".join(found)


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
    return f"{chosen.workers} at once with {chosen.threads} threads each on the CPU ({chosen.reason}){fixed}"


def _data() -> str:
    there = [
        name
        for name, dataset in datasets.DATASETS.items()
        if sources.within_reach(dataset, dataset.train, folder=None)
    ]
    missing = sorted(set(datasets.DATASETS) - set(there))
    note = f"; to be downloaded when asked for: {', '.join(missing)}" if missing else ""
    return f"here: {', '.join(there) or 'none'}{note}"


def _disk(root: Path) -> str:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise DiskError(f"{place} cannot be written; choose another folder with --root")
    free = shutil.disk_usage(place).free
    shown = f"{free / 1e9:.1f} GB free at {place}"
    if free < MIN_FREE_BYTES:
        raise DiskError(f"{shown}, a sweep needs {MIN_FREE_BYTES / 1e9} GB; make room")
    return shown


def _study(root: Path, url: str | None) -> str:
    found = storage.read_storage(root, url)
    path = url or study_db(root)
    if found is None:
        lost = [layout.folder for layout in layouts(root) if Spool(layout.spool).study()]
        if lost:
            raise StoreError(
                f"{path} is gone, which held {', '.join(lost)}; put it back, "
                "or run 'lenet-exp doctor --repair'"
            )
        return f"no {path} yet"
    return f"{path}, {len(found.get_all_studies())} studies"


def _mlflow(root: Path, tracking_uri: str | None) -> str:
    uri, artifact_root = store.locate(tracking_uri, root)
    if tracking_uri is None and not mlflow_db(root).exists():
        carried = any(Spool(layout.spool).run_ids() for layout in layouts(root))
        note = "; if the runs are on no server, run 'lenet-exp sync'" if carried else ""
        return f"no {mlflow_db(root)} yet{note}"
    store.check_reachable(uri, artifact_root)
    return f"{tracking_uri or mlflow_db(root)} answers"


def _experiment(layout: Layout, url: str | None) -> str:
    holder = lock_holder(layout.lock)
    if holder:
        return f"a sweep is at work: {holder}"
    spool = Spool(layout.spool)
    begun = spool.study()
    if begun is None:
        return "was never begun"
    if begun.end is None or has_open(begun.metadata.experiment, layout.root, url):
        raise StoreError("was cut off; run the sweep again, or 'lenet-exp doctor --repair'")
    left = spool.pending()
    if left:
        raise UnreachableError(
            f"{len(left)} runs are not all in MLflow; run 'lenet-exp sync', or 'lenet-exp doctor --repair'"
        )
    return f"{len(spool.stems()) - 1} attempts, all ended and in MLflow"


def _repair_study(root: Path) -> str:
    with ExitStack() as held:
        found = layouts(root)
        for layout in found:
            held.enter_context(lock(layout.lock))
        path = study_db(root)
        if path.exists():
            _refuse_other_version(partial(storage.read_storage, root))
        # Made elsewhere and renamed when it is whole: a repair that is cut off is as if it had not begun.
        with tempfile.TemporaryDirectory(prefix=".rebuild-", dir=root) as made:
            fresh = storage.open_storage(Path(made))
            n = sum(rebuild_study(Spool(layout.spool), fresh) for layout in found)
            storage.close(fresh)
            aside = f"{path} moved to {move_aside(path)}, and " if path.exists() else ""
            study_db(Path(made)).rename(path)
    return f"{aside}rebuilt from the spool with {n} attempts"


def _refuse_other_version(look: Callable[[], object]) -> None:
    """Raise for a store that is whole but of another version, which is not ours to mend."""
    try:
        look()
    except StoreError as error:
        if "has schema" in str(error):
            raise


def _repair_mlflow(root: Path) -> str:
    path = mlflow_db(root)
    _refuse_other_version(partial(_mlflow, root, None))
    aside = move_aside(path)
    store.prepare(store.local_uri(root), artifacts(root))
    for layout in layouts(root):
        if Spool(layout.spool).study():
            sync.sync_experiment(loader.load(layout.experiment_file), root)
    return f"{path} moved to {aside}, and made anew from the spool"


def _repair_experiment(layout: Layout, tracking_uri: str | None, url: str | None) -> str:
    chosen, root = loader.load(layout.experiment_file), layout.root
    with lock(layout.lock), run.storage_lock(url, chosen.name):
        spool = Spool(layout.spool)
        reconcile(open_study(chosen, root, url), spool, layout)
        begun = spool.study()
        if begun and begun.end is None:
            spool.end_study("PRUNED", "interrupted")
    report = sync.sync_experiment(chosen, root, tracking_uri=tracking_uri, storage=url)
    if report.problems:
        raise UnreachableError(report.problems[0])
    return f"ended what was cut off, carried {report.n_uploaded} runs"
