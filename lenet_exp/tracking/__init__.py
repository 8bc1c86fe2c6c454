"""The spool on disk, where every epoch is written first, and what uploads it to MLflow; MLflow's UI."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    events="Champion DatasetMetadata RunLog SOURCE StudyMetadata extended_run_log extended_study_log",
    model="load_network log_file",
    spool="STUDY Spool",
    store="check_reachable local_uri",
    tracker="Tracker outage_told tracked",
    ui="open_ui shows_windows",
    uploader="SyncReport lacking not_whole",
)
