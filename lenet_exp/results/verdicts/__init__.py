"""Tests and intervals: of finalists, of hyper-parameters; and how many seeds a question needs."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    importance="explained_share",
    judging="Sample Settled Verdict verdicts winners_curse",
    seeds="MOST_SEEDS seeds_for_precision seeds_to_settle",
    statistics="estimate reading_level",
)
