"""The study: which trials were drawn, what each achieved, how the next is drawn, and where that is stored."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    postgres="AdvisoryLock",
    rdb="TrialStorage",
    records="Attempt TrialRecord",
    restore="PastTrial restore_study",
    storage="full_disk_named preload",
    study="MAX_ATTEMPTS Study open_study",
    trials="RECORD RECORD_BASICS RETRY has_open read_study",
)
