"""Finalists against the baseline: tests, intervals, and how many seeds a question needs."""

from lenet_exp.base.faces import face

__getattr__, __dir__ = face(
    __name__,
    judging="Sample Settled Verdict verdicts winners_curse",
    seeds="MOST_SEEDS seeds_for_precision seeds_to_settle",
    statistics="estimate reading_level",
)
