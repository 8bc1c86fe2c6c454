"""The fixed trainings of an experiment: the baseline, and a list of runs or an ablation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

from lenet_exp.base.records import Role, TrainOn
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.hyperparameters import Configuration


@dataclass(frozen=True)
class FixedTraining:
    """A training whose configuration no sampler draws: of the baseline, a run, an alternative or a finalist.

    Attributes:
        name: Name of the training in the study; name and seed together are unique in the experiment.
        role: Role of its attempts.
        label: Name for display, such as ``baseline, seed 2``.
        configuration: Configuration to train.
        seed: Root of the training's random streams.
        train_on: Images to train on, a `TrainOn`.
    """

    name: str
    role: Role
    label: str
    configuration: Configuration
    seed: int
    train_on: TrainOn = "train"


def trained_on(name: str) -> TrainOn:
    """Return the images that a fixed training was trained on, from its name in the study.

    Only the trainings of a confirmation name them; all others are trained on the training split.

    Example:
        >>> trained_on("confirm 3fa9c2d1 on train, resampled"), trained_on("baseline")
        ('train, resampled', 'train')
    """
    return next((images for images in get_args(TrainOn) if name.endswith(f" on {images}")), "train")


def fixed_trainings(experiment: Experiment) -> list[FixedTraining]:
    """Return the fixed trainings of an experiment, except for its confirmation, in the order to train them.

    All configurations use the same seeds, so that each is compared with the baseline on equal random streams.
    All are trained from the first seed before any is trained from the second, so that an interrupted sweep
    has trained each from equally many seeds.
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
        replace(
            training,
            seed=seed,
            label=training.label if seeds == 1 else f"{training.label}, seed {number + 1}",
        )
        for number, seed in enumerate(paired_seeds(experiment.search.seed, experiment.seeds))
        for training, seeds in [(baseline, experiment.seeds), *listed]
        if number < seeds
    ]


def _training(role: Role, label: str, configuration: Configuration) -> FixedTraining:
    # Named after its configuration, not its position in the file: a changed run is another training.
    return FixedTraining(f"{role} {configuration.id}", role, label, configuration, 0)


def paired_seeds(root: int, count: int) -> list[int]:
    """Return the first ``count`` of the seeds that all configurations in `fixed_trainings` share.

    Args:
        root: Seed to derive the seeds from: ``search.seed``.
        count: Number of seeds to return.

    Example:
        >>> paired_seeds(0, 3)[:2] == paired_seeds(0, 2)
        True
    """
    return [derive_seed(root, "fixed", *([number] if number else [])) for number in range(count)]
