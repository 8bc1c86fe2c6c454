"""The trainings that no sampler chooses: the baseline, a list of runs, an ablation."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lenet_exp.base.records import Role, TrainOn
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration


@dataclass(frozen=True)
class FixedTraining:
    """A training outside the search: the baseline, a listed run, an alternative of an ablation, a finalist.

    Attributes:
        name: What the study knows it by, within the experiment; with the seed it is unique.
        role: Its role.
        label: What people call it.
        configuration: What to train.
        seed: Root of its random streams.
        train_on: The images it learns from.
    """

    name: str
    role: Role
    label: str
    configuration: Configuration
    seed: int
    train_on: TrainOn = "train"


def fixed_trainings(experiment: Experiment) -> list[FixedTraining]:
    """Return the baseline with the experiment's list of runs, or with the alternatives of its ablation.

    All that is compared has the same seeds, so that each pair begins with the same random streams. Seed goes
    before seed: a table that was cut off has as many of one row as of another.
    """
    listed = [
        (_training("run", label, configuration), run.seeds)
        for (label, configuration), run in zip(experiment.runs(), experiment.run, strict=True)
    ]
    listed += [
        (_training("ablation", f"{alternative.factor} {alternative.value}", configuration), experiment.seeds)
        for alternative, configuration in experiment.alternatives()
    ]
    baseline = FixedTraining("baseline", "baseline", "baseline", experiment.baseline_configuration, 0)
    return [
        replace(one, seed=seed, label=one.label if seeds == 1 else f"{one.label}, seed {number + 1}")
        for number, seed in enumerate(paired_seeds(experiment.search.seed, experiment.seeds))
        for one, seeds in [(baseline, experiment.seeds), *listed]
        if number < seeds
    ]


def _training(role: Role, label: str, configuration: Configuration) -> FixedTraining:
    # Named by what it is, not by where it stands: a line of the file that changes is another training.
    return FixedTraining(f"{role} {configuration.id}", role, label, configuration, 0)


def paired_seeds(root: int, count: int) -> list[int]:
    """Return the seeds that fixed trainings are paired by; more of them begin with the same ones.

    Args:
        root: The experiment's seed.
        count: How many are wanted.

    Example:
        >>> paired_seeds(0, 3)[:2] == paired_seeds(0, 2)
        True
    """
    return [derive_seed(root, "fixed", *([number] if number else [])) for number in range(count)]
