"""Results computed from the records: statistics, verdicts, the leaderboard and its CSV, ablation tables."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    ablation="ablation_table",
    aggregate="pareto_front",
    champion="elected has_baseline",
    evaluation="ConfirmationPlan Evaluation Finalist NOT_CONFIRMED PLAN READINGS SPEEDS Score "
    "confirmation_summary read_evaluations",
    leaderboard="ranked read_leaderboard",
    lookup="ExperimentResults ensure_related read_related read_results",
    read="own_files show_leaderboard write_own_files",
    table="Table to_csv",
    verdicts="Verdict",
)
