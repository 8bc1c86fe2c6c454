"""The plan of a confirmation and the record of its reading of the test split, as plain values.

The study stores the plan before any of its networks is trained. It stores the record before the test split is
opened, and completes it afterwards. `lenet_exp.results.conclusion` says what follows from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lenet_exp.base.messages import counted
from lenet_exp.base.records import TrainOn
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.table import finite
from lenet_exp.results.verdicts.judging import Settled
from lenet_exp.results.verdicts.statistics import reading_level

#: Names under which the study stores the latest plan, all evaluations, and the training speed of each
#: configuration in examples per second, measured while nothing else ran.
PLAN, READINGS, SPEEDS = "confirm_plan", "test_readings", "alone_examples_per_s"


@dataclass(frozen=True)
class Finalist:
    """A configuration to confirm, or the baseline that it is compared with.

    Attributes:
        configuration: The configuration to train on the fresh seeds.
        label: Name that people see, such as ``trial 12`` or ``baseline``.
        val_accuracy: Validation accuracy by which the search chose a finalist; None for the baseline.
    """

    configuration: Configuration
    label: str
    val_accuracy: float | None

    @property
    def config(self) -> str:
        """The configuration's hash."""
        return self.configuration.id

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the hash, ready for JSON."""
        return {
            "config": self.config,
            "label": self.label,
            "values": self.configuration.hyperparameters(),
            "epochs": self.configuration.epochs,
            "val_accuracy": self.val_accuracy,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Finalist:
        """Return the finalist that `to_dict` wrote."""
        configuration = Configuration.from_dict({**written["values"], "epochs": written["epochs"]})
        return cls(configuration, written["label"], written["val_accuracy"])


@dataclass(frozen=True)
class FirstStage:
    """How a confirmation with ``seeds = "auto"`` finds its number of seeds.

    Attributes:
        n_seeds: Number of seeds that are trained first. They are never evaluated on the test split: what
            chose the number has no part in the verdict, so the verdict's level is kept whatever the noise.
        precision: Largest wanted half-width of the interval of a difference.
        max_seeds: Largest number of seeds to evaluate on the test split.
        spreads: Standard deviation of each finalist's paired differences in validation accuracy on these
            seeds, by configuration hash; None where too few are complete. None until they are trained.
        n_wanted: Number of seeds that give the precision, which may be above ``max_seeds``; 0 until then.
    """

    n_seeds: int
    precision: float
    max_seeds: int
    spreads: Mapping[str, float | None] | None = None
    n_wanted: int = 0


@dataclass(frozen=True)
class ConfirmationPlan:
    """Which configurations a confirmation compares, and how; frozen before the first of them is trained.

    Attributes:
        frozen: Time at which the plan was created, ISO 8601 in UTC.
        finalists: Configurations to confirm, the best validation accuracy first.
        baseline: The configuration that the finalists are compared with.
        seeds: Fresh random seeds, which no search has used; every configuration is trained on each. With
            ``first_stage`` these are its seeds until it is done, and after it those of the second stage.
        train_on: Images that every configuration is trained on.
        level: Largest accepted chance, in all readings together, that any finalist is called *better* or
            *worse* although it does not differ from the baseline, in (0, 1).
        n_finished: Number of trials that the search had finished when the plan was created.
        first_stage: Stage by which the number of seeds is found; None if it was given.
        skipped: Number of fresh seeds that are left out, as an earlier plan found its number with them; 0 in
            a plan that finds its own.
    """

    frozen: str
    finalists: tuple[Finalist, ...]
    baseline: Finalist
    seeds: tuple[int, ...]
    train_on: TrainOn
    level: float
    n_finished: int
    first_stage: FirstStage | None = None
    skipped: int = 0

    @property
    def n_seeds_before(self) -> int:
        """Number of fresh seeds that were trained only to find the number of seeds."""
        first = self.first_stage
        return self.skipped if first is None or first.spreads is None else first.n_seeds

    @property
    def networks(self) -> tuple[object, ...]:
        """What is compared, and at which level; two plans that share it have the same trainings."""
        finalists = frozenset(finalist.config for finalist in self.finalists)
        is_staged = self.first_stage is not None and self.first_stage.spreads is None
        return finalists, self.baseline.config, self.seeds, self.train_on, self.level, is_staged

    @property
    def everyone(self) -> tuple[Finalist, ...]:
        """The baseline, followed by the finalists."""
        return (self.baseline, *self.finalists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        finalists = [finalist.to_dict() for finalist in self.finalists]
        return {
            **vars(self),
            "finalists": finalists,
            "baseline": self.baseline.to_dict(),
            "first_stage": asdict(self.first_stage) if self.first_stage else None,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> ConfirmationPlan:
        """Return the plan that `to_dict` wrote."""
        return cls(
            **{
                **written,
                "finalists": tuple(map(Finalist.from_dict, written["finalists"])),
                "baseline": Finalist.from_dict(written["baseline"]),
                "seeds": tuple(written["seeds"]),
                "first_stage": FirstStage(**stage) if (stage := written.get("first_stage")) else None,
            }
        )


@dataclass(frozen=True)
class Score:
    """Accuracy and loss of one trained network on the test split.

    Attributes:
        run: Stem of the attempt that trained the network, see `lenet_exp.base.records.RunKey`.
        config: Hash of the network's configuration.
        seed: Seed of the training.
        test_accuracy: Share of the test images classified correctly, in [0, 1].
        test_loss: Mean loss over the test images.
    """

    run: str
    config: str
    seed: int
    test_accuracy: float
    test_loss: float


@dataclass(frozen=True)
class SeedsToSettle:
    """How many seeds would settle the ties of an evaluation.

    Attributes:
        difference: The difference in accuracy that is to be found.
        level: Level of the reading that would follow.
        seeds: Least and largest number of seeds by the hash of each tie's finalist, see
            `lenet_exp.results.verdicts.seeds.seeds_to_settle`.
    """

    difference: float
    level: float
    seeds: Mapping[str, tuple[int | None, int | None]]


@dataclass(frozen=True)
class Evaluation:
    """The record of one reading of the test split: stored before the files are opened, completed afterwards.

    Attributes:
        number: Position among the study's readings of the test split, counted from 1.
        plan: The plan whose networks are evaluated.
        dataset: Name of the data set.
        version: Version of `lenet_exp`.
        again: True if the study had read the test split before.
        begun: Times at which the test files were opened, in UTC; more than one if the reading was interrupted
            and started again.
        completed: Time at which the last result was computed, in UTC; None until then.
        digest: Digest of the test images and labels; empty until completed.
        n_images: Number of test images; 0 until completed.
        scores: One `Score` per network; a training that failed has none.
        verdicts: Fields of a `lenet_exp.results.verdicts.judging.Verdict` per finalist; None replaces NaN
            when it is stored.
        fresh_val_accuracy: Mean validation accuracy over the fresh seeds, by configuration hash; None until
            completed, and empty if the validation images were trained on.
        curse: Sentence of `lenet_exp.results.verdicts.judging.winners_curse` on the first finalist; empty if
            unknown.
        champion: Hash of the champion's configuration: the best finalist that is better than the baseline,
            else the baseline; empty until completed.
        study: Id of the study; empty in readings from before there were ids.
        spent: Level that this reading has of the level of all readings together; None in readings from before
            the level was divided, which had all of it.
        spent_before: Level that the earlier readings had.
        to_settle: Numbers of seeds that would settle the ties; None until completed, and in older readings.
    """

    number: int
    plan: ConfirmationPlan
    dataset: str
    version: str
    again: bool
    begun: tuple[str, ...]
    completed: str | None = None
    digest: str = ""
    n_images: int = 0
    scores: tuple[Score, ...] = ()
    verdicts: tuple[Mapping[str, Any], ...] = ()
    fresh_val_accuracy: Mapping[str, float] | None = None
    curse: str = ""
    champion: str = ""
    study: str = ""
    spent: float | None = None
    spent_before: float = 0.0
    to_settle: SeedsToSettle | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; None replaces numbers that are not finite."""
        return {
            **vars(self),
            "plan": self.plan.to_dict(),
            "scores": [asdict(score) for score in self.scores],
            "verdicts": [
                {name: finite(value) for name, value in verdict.items()} for verdict in self.verdicts
            ],
            "to_settle": asdict(self.to_settle) if self.to_settle else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_dict` wrote."""
        return cls(
            **{
                **values,
                "plan": ConfirmationPlan.from_dict(values["plan"]),
                "begun": tuple(values["begun"]),
                "scores": tuple(Score(**score) for score in values["scores"]),
                "verdicts": tuple(values["verdicts"]),
                "to_settle": _to_settle(values.get("to_settle")),
            }
        )

    @property
    def level(self) -> float:
        """Level that this reading has of the level of all readings together."""
        return self.plan.level if self.spent is None else self.spent

    @property
    def has_baseline(self) -> bool:
        """True if the baseline has a score on every seed; without it, nothing can be compared."""
        seeds = {score.seed for score in self.scores if score.config == self.plan.baseline.config}
        return seeds >= set(self.plan.seeds)

    def label(self, config: str) -> str:
        """Return the label of the finalist, or of the baseline, whose hash is ``config``."""
        return next(finalist.label for finalist in self.plan.everyone if finalist.config == config)

    def as_text(self) -> str:
        """Return one line that says when the test split was read, and for which configurations."""
        state = f"completed {self.completed}" if self.completed else "not completed"
        labels = ", ".join(finalist.label for finalist in self.plan.everyone)
        again = " (again)" if self.again else ""
        started = ", ".join(self.begun)
        seeds = counted(len(self.plan.seeds), "seed")
        level = f"level {self.level:.3g}"
        return f"{self.number}{again}: started {started}, {state}: {labels}, {seeds}, {level}"


def _to_settle(written: Mapping[str, Any] | None) -> SeedsToSettle | None:
    if not written:
        return None
    seeds = {config: (low, high) for config, (low, high) in written["seeds"].items()}
    return SeedsToSettle(written["difference"], written["level"], seeds)


def read_evaluations(kept: Any) -> list[Evaluation]:
    """Return a study's evaluations, in the order of the readings.

    Args:
        kept: Value that the study stores as `READINGS`; None if there is none.
    """
    return [Evaluation.from_dict(written) for written in kept or ()]


def last_reading_of(plan: ConfirmationPlan, evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the last complete evaluation if it was of a plan's networks, else None.

    Args:
        plan: The plan.
        evaluations: All evaluations, in the order of the readings.
    """
    complete = [evaluation for evaluation in evaluations if evaluation.completed]
    # One without the baseline gave no verdict; it is mended by another, which is on record as such.
    if complete and complete[-1].has_baseline and complete[-1].plan.networks == plan.networks:
        return complete[-1]
    return None


def next_level(evaluations: Sequence[Evaluation], level: float) -> float:
    """Return the level of the next reading of the test split.

    Args:
        evaluations: All evaluations so far; also one that was cut off counts, as it was on record.
        level: Level of all readings together, in (0, 1).
    """
    return reading_level(level, len(evaluations) + 1)


def settled_by(evaluations: Sequence[Evaluation], plan: ConfirmationPlan) -> dict[str, Settled]:
    """Return what earlier readings have settled of a plan's finalists, by configuration hash.

    The last complete reading that tested a finalist counts, if its networks were trained on the same images
    and compared with the same baseline: else it answered another question.

    Args:
        evaluations: The earlier evaluations, in the order of the readings.
        plan: The plan whose finalists are to be judged.
    """
    settled: dict[str, Settled] = {}
    for evaluation in evaluations:
        earlier = evaluation.plan
        same = (earlier.train_on, earlier.baseline.config) == (plan.train_on, plan.baseline.config)
        if not (evaluation.completed and evaluation.has_baseline and same):
            continue
        for verdict in evaluation.verdicts:
            if finite(verdict["p_value"]) is None:
                continue  # not tested, as a training failed or there is a single seed
            settled.pop(verdict["config"], None)
            if verdict["verdict"] != "tie":
                first = verdict.get("settled_by") or evaluation.number
                level = verdict.get("level") or evaluation.level
                settled[verdict["config"]] = Settled(verdict["verdict"], first, level)
    return settled
