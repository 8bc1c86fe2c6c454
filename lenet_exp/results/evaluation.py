"""The plan of a confirmation and the record of its reading of the test split, as plain values.

The study stores the plan before any of its networks is trained. It stores the record before the test split is
opened, and completes it afterwards. The leaderboard and the terminal show what both say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lenet_exp.base.messages import counted
from lenet_exp.base.records import TrainOn
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.table import finite

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
class ConfirmationPlan:
    """Which configurations a confirmation compares, and how; frozen before the first of them is trained.

    Attributes:
        frozen: Time at which the plan was created, ISO 8601 in UTC.
        finalists: Configurations to confirm, the best validation accuracy first.
        baseline: The configuration that the finalists are compared with.
        seeds: Fresh random seeds, which no search has used; every configuration is trained on each.
        train_on: Images that every configuration is trained on.
        level: Largest accepted chance that any finalist is called *better* or *worse* although none differs
            from the baseline, in (0, 1).
        n_finished: Number of trials that the search had finished when the plan was created.
    """

    frozen: str
    finalists: tuple[Finalist, ...]
    baseline: Finalist
    seeds: tuple[int, ...]
    train_on: TrainOn
    level: float
    n_finished: int

    @property
    def everyone(self) -> tuple[Finalist, ...]:
        """The baseline, followed by the finalists."""
        return (self.baseline, *self.finalists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        finalists = [finalist.to_dict() for finalist in self.finalists]
        return {**vars(self), "finalists": finalists, "baseline": self.baseline.to_dict()}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> ConfirmationPlan:
        """Return the plan that `to_dict` wrote."""
        return cls(
            **{
                **written,
                "finalists": tuple(map(Finalist.from_dict, written["finalists"])),
                "baseline": Finalist.from_dict(written["baseline"]),
                "seeds": tuple(written["seeds"]),
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
        verdicts: Fields of a `lenet_exp.results.verdicts.Verdict` per finalist; None replaces NaN when
            it is stored.
        fresh_val_accuracy: Mean validation accuracy over the fresh seeds, by configuration hash; None until
            completed, and empty if the validation images were trained on.
        curse: Sentence of `lenet_exp.results.verdicts.winners_curse` on the first finalist; empty if unknown.
        champion: Hash of the champion's configuration: the best finalist that is better than the baseline,
            else the baseline; empty until completed.
        study: Id of the study; empty in readings from before there were ids.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; None replaces numbers that are not finite."""
        return {
            **vars(self),
            "plan": self.plan.to_dict(),
            "scores": [asdict(score) for score in self.scores],
            "verdicts": [
                {name: finite(value) for name, value in verdict.items()} for verdict in self.verdicts
            ],
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
            }
        )

    @property
    def has_baseline(self) -> bool:
        """True if the baseline has a score on every seed; without it, nothing can be compared."""
        seeds = {score.seed for score in self.scores if score.config == self.plan.baseline.config}
        return seeds >= set(self.plan.seeds)

    def label(self, config: str) -> str:
        """Return the label of the finalist, or of the baseline, whose hash is ``config``."""
        return next(finalist.label for finalist in self.plan.everyone if finalist.config == config)

    def sentences(self) -> list[str]:
        """Return the verdicts, the winner's curse and the champion in plain words, one sentence each."""
        if not self.has_baseline:  # read so until November 2026
            return ["no verdict and no champion: the test split was read without a complete baseline"]
        sentences = [f"{self.label(verdict['config'])}: {verdict['sentence']}" for verdict in self.verdicts]
        if self.curse:
            sentences.append(f"winner's curse, {self.plan.finalists[0].label}: {self.curse}")
        if self.champion == self.plan.baseline.config:
            sentences.append("champion: the baseline, as no finalist is better")
        else:
            sentences.append(f"champion: {self.label(self.champion)}")
        return sentences

    def as_text(self) -> str:
        """Return one line that says when the test split was read, and for which configurations."""
        state = f"completed {self.completed}" if self.completed else "not completed"
        labels = ", ".join(finalist.label for finalist in self.plan.everyone)
        again = " (again)" if self.again else ""
        started = ", ".join(self.begun)
        seeds = counted(len(self.plan.seeds), "seed")
        return f"{self.number}{again}: started {started}, {state}: {labels}, {seeds}"


def read_evaluations(kept: Any) -> list[Evaluation]:
    """Return a study's evaluations, in the order of the readings.

    Args:
        kept: Value that the study stores as `READINGS`; None if there is none.
    """
    return [Evaluation.from_dict(written) for written in kept or ()]


@dataclass(frozen=True)
class ConfirmationSummary:
    """What a confirmation adds to the leaderboard.

    Attributes:
        cells: Cells to add to a configuration's row of the leaderboard, by hash and then by column.
        sentences: Verdicts, winner's curse and champion in plain words, one sentence each.
        evaluation: The evaluation that the summary is made from; None if no evaluation is complete.
    """

    cells: Mapping[str, Mapping[str, Any]]
    sentences: tuple[str, ...] = ()
    evaluation: Evaluation | None = None


#: The summary of a study without a complete evaluation.
NOT_CONFIRMED = ConfirmationSummary({})


def confirmation_summary(kept_readings: Any, kept_speeds: Any) -> ConfirmationSummary:
    """Return the summary of the last complete evaluation, or `NOT_CONFIRMED` if there is none.

    Args:
        kept_readings: Value that the study stores as `READINGS`; None if there is none.
        kept_speeds: Value that the study stores as `SPEEDS`; None if there is none.
    """
    complete = [evaluation for evaluation in read_evaluations(kept_readings) if evaluation.completed]
    if not complete:
        return NOT_CONFIRMED
    evaluation, speeds = complete[-1], kept_speeds or {}
    verdicts = {verdict["config"]: verdict for verdict in evaluation.verdicts}
    cells = {}
    for finalist in evaluation.plan.everyone:
        config = finalist.config
        cells[config] = {
            **_test_cells(evaluation, config),
            **(_verdict_cells(verdicts[config]) if config in verdicts and evaluation.has_baseline else {}),
            **({"examples_per_s": speeds[config]} if config in speeds else {}),
            "fresh_val_accuracy": (evaluation.fresh_val_accuracy or {}).get(config),
        }
    return ConfirmationSummary(cells, tuple(evaluation.sentences()), evaluation)


def _test_cells(evaluation: Evaluation, config: str) -> dict[str, Any]:
    accuracies = [score.test_accuracy for score in evaluation.scores if score.config == config]
    n = len(accuracies)
    mean = math.fsum(accuracies) / n if n else None
    sem = None
    if mean is not None and n > 1:
        sem = math.sqrt(math.fsum((value - mean) ** 2 for value in accuracies) / (n - 1) / n)
    delta = 0.0 if n and evaluation.has_baseline else None
    return {"n_seeds": n, "test_accuracy": mean, "test_accuracy_sem": sem, "delta": delta}


def _verdict_cells(verdict: Mapping[str, Any]) -> dict[str, Any]:
    names = "delta delta_low delta_high p_value verdict permutation_p mcnemar_p seeds_to_settle"
    return {name: verdict[name] for name in names.split()}
