"""A process for each attempt: its start, messages, checkpoints and limits, and what signals do to a sweep."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    calls="run_in_process",
    executor="LocalExecutor",
    processes="TRAINER keep_freed_memory start_fork_server",
    protocol="Conditions Ended Epoch Machine Task Warned",
    resources="Capacity DEFAULT Limits MIN_FREE_BYTES RunningTime WorkerPlan check_room measure "
    "plan size_bytes trial_memory",
    signals="exit_command own_process signals_to terminable unwinding when_ending",
)
