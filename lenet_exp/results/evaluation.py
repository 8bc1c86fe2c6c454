"""What a confirmation froze and what its readings of the test split gave, as plain values.

The study keeps them, before and after each reading; the leaderboard and the terminal show them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lenet_exp.base.records import TrainOn
from lenet_exp.config.hyperparameters import Configuration
from lenet_exp.results.table import finite

#: What the study keeps them under: the finalists that wait for their reading, all readings, and speeds.
PLAN, READINGS, SPEEDS = "confirm_plan", "test_readings", "alone_examples_per_s"


@dataclass(frozen=True)
class Finalist:
    """A configuration that is confirmed, or the baseline, as it was frozen.

    Attributes:
        configuration: What is trained on the fresh seeds.
        label: What people call it.
        values: The hyper-parameters by key.
        epochs: Epochs that it is trained.
        val_accuracy: What it had in the search; None if it was not in one.
    """

    configuration: Configuration
    label: str
    val_accuracy: float | None

    @property
    def config(self) -> str:
        """The configuration's hash."""
        return self.configuration.id

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, ready for JSON."""
        return {
            "config": self.config,
            "label": self.label,
            "values": self.configuration.hyperparameters(),
            "epochs": self.configuration.epochs,
            "val_accuracy": self.val_accuracy,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Finalist:
        """Return what `to_dict` gave."""
        configuration = Configuration.from_dict({**written["values"], "epochs": written["epochs"]})
        return cls(configuration, written["label"], written["val_accuracy"])


@dataclass(frozen=True)
class ConfirmationPlan:
    """What is to be trained and read: fixed before any of it is trained.

    Attributes:
        frozen: When it was fixed, in UTC.
        finalists: What is confirmed, by validation accuracy, the best first.
        baseline: What the finalists are compared with.
        seeds: Fresh ones, the same for all.
        train_on: The images that all learn from.
        level: The chance, at most, of a verdict where nothing differs.
        n_finished: Trials that the search had finished by then.
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
        """The baseline and the finalists."""
        return (self.baseline, *self.finalists)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        finalists = [one.to_dict() for one in self.finalists]
        return {**vars(self), "finalists": finalists, "baseline": self.baseline.to_dict()}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> ConfirmationPlan:
        """Return what `to_dict` gave."""
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
    """What one trained network reached on the test split.

    Attributes:
        run: The attempt's stem.
        config: Hash of its configuration.
        seed: Root of the random streams that it was trained on.
        test_accuracy: Share in [0, 1].
        test_loss: Mean over the test images.
    """

    run: str
    config: str
    seed: int
    test_accuracy: float
    test_loss: float


@dataclass(frozen=True)
class Evaluation:
    """One reading of the test split, noted before the files are opened and completed after.

    Attributes:
        number: Counted from 1.
        plan: What was frozen.
        dataset: The data set's name.
        version: Version of this project.
        again: Whether the split had been read before this.
        begun: When the split's files were opened, in UTC; more than once if the first was cut off.
        completed: When everything was computed; None until then.
        digest: Digest of the test images and labels.
        n_images: How many test images there are.
        scores: One for each network.
        verdicts: On each finalist: the fields of `lenet_exp.results.verdicts.Verdict`, what is unknown None.
        fresh_val_accuracy: Mean over the fresh seeds by configuration, where there was a validation.
        curse: How far the search flattered its winner, in a sentence; empty if not known.
        champion: The configuration that won; the baseline's if none is better.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON: a number that is not finite is None."""
        return {
            **vars(self),
            "plan": self.plan.to_dict(),
            "scores": [asdict(one) for one in self.scores],
            "verdicts": [{name: finite(value) for name, value in one.items()} for one in self.verdicts],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return what `to_dict` gave."""
        return cls(
            **{
                **values,
                "plan": ConfirmationPlan.from_dict(values["plan"]),
                "begun": tuple(values["begun"]),
                "scores": tuple(Score(**one) for one in values["scores"]),
                "verdicts": tuple(values["verdicts"]),
            }
        )

    def label(self, config: str) -> str:
        """Return what people call a configuration."""
        return next(one.label for one in self.plan.everyone if one.config == config)

    def sentences(self) -> list[str]:
        """Return what was found out, in plain words."""
        said = [f"{self.label(one['config'])}: {one['sentence']}" for one in self.verdicts]
        if self.curse:
            said.append(f"winner's curse, {self.plan.finalists[0].label}: {self.curse}")
        if self.champion == self.plan.baseline.config:
            said.append("champion: the baseline, as nothing is better")
        else:
            said.append(f"champion: {self.label(self.champion)}")
        return said

    def as_text(self) -> str:
        """Return when and what was read, in one line."""
        state = f"completed {self.completed}" if self.completed else "not completed"
        labels = ", ".join(one.label for one in self.plan.everyone)
        again = " (again)" if self.again else ""
        begun = ", ".join(self.begun)
        return f"{self.number}{again}: begun {begun}, {state}, {labels}, {len(self.plan.seeds)} seeds"


def read_evaluations(kept: Any) -> list[Evaluation]:
    """Return the readings that a study kept, as its value for `READINGS` has them."""
    return [Evaluation.from_dict(one) for one in kept or ()]


@dataclass(frozen=True)
class ConfirmationSummary:
    """What is known of configurations beyond their trials.

    Attributes:
        cells: Columns of the leaderboard by the configuration's hash.
        sentences: The same in plain words.
        evaluation: The evaluation of the test split that all this is from; None before there was one.
    """

    cells: Mapping[str, Mapping[str, Any]]
    sentences: tuple[str, ...] = ()
    evaluation: Evaluation | None = None


#: Before anything was confirmed.
NOT_CONFIRMED = ConfirmationSummary({})


def confirmation_summary(kept_readings: Any, kept_speeds: Any) -> ConfirmationSummary:
    """Return what the last complete reading found, from what the study kept.

    Args:
        kept_readings: What the study keeps as `READINGS`.
        kept_speeds: What it keeps as `SPEEDS`: examples per second by the configuration's hash.
    """
    complete = [evaluation for evaluation in read_evaluations(kept_readings) if evaluation.completed]
    if not complete:
        return NOT_CONFIRMED
    evaluation, speeds = complete[-1], kept_speeds or {}
    by_config = {one["config"]: one for one in evaluation.verdicts}
    cells = {
        one.config: {
            **_test_cells(evaluation, one.config),
            **({} if one == evaluation.plan.baseline else _verdict_cells(by_config[one.config])),
            **({"examples_per_s": speeds[one.config]} if one.config in speeds else {}),
            "fresh_val_accuracy": (evaluation.fresh_val_accuracy or {}).get(one.config),
        }
        for one in evaluation.plan.everyone
    }
    return ConfirmationSummary(cells, tuple(evaluation.sentences()), evaluation)


def _test_cells(evaluation: Evaluation, config: str) -> dict[str, Any]:
    reached = [score.test_accuracy for score in evaluation.scores if score.config == config]
    n = len(reached)
    mean = math.fsum(reached) / n if n else None
    sem = None
    if mean is not None and n > 1:
        sem = math.sqrt(math.fsum((value - mean) ** 2 for value in reached) / (n - 1) / n)
    return {"n_seeds": n, "test_accuracy": mean, "test_accuracy_sem": sem, "delta": 0.0 if n else None}


def _verdict_cells(verdict: Mapping[str, Any]) -> dict[str, Any]:
    names = "delta delta_low delta_high p_value verdict permutation_p mcnemar_p seeds_to_settle"
    return {name: verdict[name] for name in names.split()}
