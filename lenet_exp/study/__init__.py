"""The study: which trials were drawn, what each achieved, how the next is drawn, and where that is stored."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    postgres="AdvisoryLock",
    rdb="TrialStorage",
    records="Attempt DIGEST TrialRecord",
    storage="full_disk_named preload set_aside",
    study="MAX_ATTEMPTS Study open_study",
    trials="PastTrial RECORD RECORD_BASICS RETRY StudyContent counts has_open read_study restore_study",
)
