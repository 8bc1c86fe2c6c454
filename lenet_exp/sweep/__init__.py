"""The main job: the driver's loop, the order of writes, recovery after a crash, confirmation, sync."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    finalists="on_dataset",
    recovery="rebuild_study reconcile sync_experiment",
    run="Request run_main_job",
    salvage="damage",
)
