"""Results computed from the records: the confirmation and its conclusion, leaderboard, ablation tables."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    ablation="ABLATION_MEANINGS ablation_table",
    aggregate="configurations is_compared on_front pareto_front",
    champion="elected has_baseline",
    conclusion="ConfirmationSummary NOT_CONFIRMED confirmation_summary error_chance "
    "paired_differences seeds_needed",
    evaluation="ConfirmationPlan Evaluation Finalist FirstStage PLAN READINGS SPEEDS Score "
    "last_reading_of next_level read_evaluations settled_by",
    leaderboard="MEANINGS ranked read_leaderboard",
    lookup="ExperimentResults ensure_related read_related read_results",
    read="own_files print_results show_leaderboard write_own_files",
    table="Table finite to_csv",
)
