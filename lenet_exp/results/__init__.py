"""What was recorded, read again: statistics, verdicts, the leaderboard and its CSV, ablation tables."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    aggregate="pareto_front",
    evaluation="Finalist NOTHING PLAN Plan READINGS Reading SPEEDS Score findings read_readings",
    leaderboard="ranked",
    lookup="Recorded read_recorded",
    read="own_files show_leaderboard write_own_files",
    table="Table to_csv",
)
