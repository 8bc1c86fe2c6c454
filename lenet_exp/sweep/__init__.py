"""The main job: the driver's loop, the order of writes, recovery after a crash, confirmation, sync."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    api="load_experiment open_results",
    finalists="on_dataset",
    recovery="rebuild_study reconcile",
    run="Request run_sweep",
    sync="sync_experiment",
)
