"""The trainings that no sampler chooses: the baseline, and an experiment's list of runs."""

from __future__ import annotations

from dataclasses import dataclass

from lenet_exp.config import Configuration
from lenet_exp.experiment import Experiment
from lenet_exp.record import Role
from lenet_exp.seeding import derive_seed


@dataclass(frozen=True)
class Job:
    """One training of them.

    Attributes:
        name: What the study knows it by, within the experiment; with the seed it is unique.
        role: Its role.
        label: What people call it.
        configuration: What to train.
        seed: Root of its random streams.
    """

    name: str
    role: Role
    label: str
    configuration: Configuration
    seed: int


def fixed_jobs(experiment: Experiment) -> list[Job]:
    """Return the baseline and the experiment's list of runs; all begin with the same seed."""
    seed = derive_seed(experiment.search.seed, "fixed")
    jobs = [Job("baseline", "baseline", "baseline", experiment.baseline_configuration, seed)]
    for number, (label, configuration) in enumerate(experiment.runs(), start=1):
        jobs.append(Job(f"run {number}", "run", label, configuration, seed))
    return jobs
