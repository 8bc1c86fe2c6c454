"""The confirmation: finalists and baseline on fresh seeds, then one reading of the test split for all.

What is decided is kept with the study before it is acted on: the finalists before any is trained, the
reading before a file is opened. So a confirmation that was cut off goes on with the same finalists, and
what was read of the test split is on record whatever happens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from lenet_exp import __version__
from lenet_exp.base.errors import DataError, NoResultError
from lenet_exp.base.files import write_atomically
from lenet_exp.base.records import Role, RunKey
from lenet_exp.base.seeding import derive_seed
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data import testset
from lenet_exp.data.split import division
from lenet_exp.execution.calls import run_in_process
from lenet_exp.execution.protocol import Conditions
from lenet_exp.results import champion
from lenet_exp.results import verdicts as compare
from lenet_exp.results.evaluation import (
    PLAN,
    READINGS,
    SPEEDS,
    ConfirmationPlan,
    Evaluation,
    Finalist,
    Score,
    read_evaluations,
)
from lenet_exp.study.records import TrialRecord
from lenet_exp.training.evaluate import (
    SavedNetwork,
    alone_examples_per_s,
    correct_predictions,
    evaluate_networks,
)

if TYPE_CHECKING:
    from lenet_exp.study.study import Study
    from lenet_exp.tracking.spool import Spool


def ensure_available(experiment: Experiment) -> None:
    """Make sure, without opening them, that the test images can be read when their time comes.

    Raises:
        DataError: If they cannot.
    """
    try:
        testset.ensure_available(experiment.data)
    except DataError as error:
        raise DataError(f"{error}; or leave the confirmation out with --no-confirm") from None


def freeze(experiment: Experiment, finalists: Sequence[Finalist], n_finished: int) -> ConfirmationPlan:
    """Return what is to be confirmed, and how, from now on.

    Args:
        experiment: With its precision resolved.
        finalists: The best first.
        n_finished: Trials that the search had finished by then.
    """
    settings = experiment.confirm
    return ConfirmationPlan(
        frozen=_now(),
        finalists=tuple(finalists),
        baseline=Finalist(experiment.baseline_configuration, "baseline", None),
        seeds=_seeds(experiment),
        train_on=settings.train_on,
        level=settings.level,
        n_finished=n_finished,
    )


def confirmation_trainings(plan: ConfirmationPlan, *, is_alone: bool) -> list[FixedTraining]:
    """Return the trainings of a plan, seed by seed, so that whatever is done by some time is paired.

    Args:
        plan: What was frozen.
        is_alone: Whether the study has nothing else, as on another data set. The trainings on the first
            seed then stand for the configurations in the leaderboard.
    """
    trainings = []
    for number, seed in enumerate(plan.seeds, start=1):
        for one in plan.everyone:
            training = replace(_training(one, plan, seed), label=f"{one.label}, seed {number}")
            if is_alone and number == 1:
                role: Role = "baseline" if one == plan.baseline else "run"
                training = replace(training, role=role, label=one.label)
            trainings.append(training)
    return trainings


def _training(finalist: Finalist, plan: ConfirmationPlan, seed: int) -> FixedTraining:
    # The same trainings serve every later plan.
    name = f"confirm {finalist.config} on {plan.train_on}"
    return FixedTraining(name, "confirm", finalist.label, finalist.configuration, seed, plan.train_on)


@dataclass
class Confirmation:
    """One experiment's confirmation.

    Attributes:
        conditions: What all attempts share.
        study: Keeps the plan, the trainings and the readings.
        spool: What MLflow is told.
        train: Trains these by the sweep's driver; returns whether all of them ended.
        settle: Returns when nothing else is at work that a timing would notice.
        announce: Called with lines for people.
        is_alone: See `confirmation_trainings`.
    """

    conditions: Conditions
    study: Study
    spool: Spool
    train: Callable[[Sequence[FixedTraining]], bool]
    settle: Callable[[], object]
    announce: Callable[[str], None]
    is_alone: bool = False

    def __post_init__(self) -> None:
        self.experiment, self.layout = self.conditions.experiment, self.conditions.layout
        self.device, self.threads = self.conditions.machine.devices[0], self.conditions.plan.threads

    def run(self, finalists: Callable[[], Sequence[Finalist]], *, again: bool = False) -> bool:
        """Confirm, or go on with it; what was read already is not read again unless ``again``.

        Args:
            finalists: Called if there are none frozen yet; gives the best first.
            again: Freeze, train and read anew.

        Returns:
            Whether the last reading is complete.

        Raises:
            DataError, DiskError, NoResultError, SweepInterruptedError: As the sweep.
        """
        plan = self._plan(finalists, again=again)
        if plan is not None:
            if not self.train(confirmation_trainings(plan, is_alone=self.is_alone)):
                self.announce(
                    "confirmation: not all are trained, so nothing is read; the same command goes on"
                )
                return False
            self._time_alone(plan)
            self._read(plan)
        evaluations = read_evaluations(self.study.kept(READINGS))
        if not evaluations:
            return False
        self._tell(evaluations)
        return True

    def _plan(self, finalists: Callable[[], Sequence[Finalist]], *, again: bool) -> ConfirmationPlan | None:
        """Return the plan that waits for its reading, a new one, or None if there is nothing to do."""
        kept = self.study.kept(PLAN)
        plan = ConfirmationPlan.from_dict(kept) if kept else None
        evaluations = read_evaluations(self.study.kept(READINGS))
        is_read = any(evaluation.completed and evaluation.plan == plan for evaluation in evaluations)
        if plan is not None and not again:
            if not is_read:
                self.announce(f"confirmation: {_shown(plan)}, frozen {plan.frozen}")
                return plan
            settings = self.experiment.confirm
            now = (_seeds(self.experiment), settings.train_on, settings.level)
            if self.study.n_finished > plan.n_finished or now != (plan.seeds, plan.train_on, plan.level):
                self.announce(
                    f"confirmed with what was known {plan.frozen}: {_shown(plan)};"
                    " 'lenet-exp confirm --again' confirms anew"
                )
            return None
        if again and evaluations and not evaluations[-1].completed and evaluations[-1].plan == plan:
            return plan  # this one is under way
        plan = freeze(self.experiment, finalists(), self.study.n_finished)
        if not plan.finalists:
            return None
        self.study.keep(PLAN, plan.to_dict())
        self.announce(f"confirmation: {_shown(plan)}")
        return plan

    def _time_alone(self, plan: ConfirmationPlan) -> None:
        """Time those that have not been, one after the other with nothing beside them."""
        speeds: dict[str, float] = self.study.kept(SPEEDS) or {}
        split = division(self.experiment.data, self.conditions.images.open()[1])
        for one in plan.everyone:
            if one.config in speeds:
                continue
            self.settle()
            speed = run_in_process(
                alone_examples_per_s,
                one.configuration,
                self.conditions.images,
                split,
                self.device,
                self.threads,
                plan.seeds[0],
                self.experiment.training,
            )
            if speed is not None:
                speeds[one.config] = speed
                self.study.keep(SPEEDS, speeds)
                self.announce(f"{one.label}: {speed:,.0f} examples/s alone")

    def _trained(self, plan: ConfirmationPlan) -> list[tuple[Finalist, int, TrialRecord]]:
        """Return what ended with a network, by finalist and seed."""
        ended = [
            (one, seed, self.study.fixed_record(_training(one, plan, seed)))
            for one in plan.everyone
            for seed in plan.seeds
        ]
        return [(one, seed, record) for one, seed, record in ended if record and record.state == "COMPLETE"]

    def _read(self, plan: ConfirmationPlan) -> None:
        """Read the test split: note it, open it, score all networks, and only then complete the note."""
        trained = self._trained(plan)
        if not trained:
            raise NoResultError("no network to confirm: every training of the confirmation failed")
        networks = [self._network(record.key, one) for one, _, record in trained]
        gone = [network.weights for network in networks if not network.weights.exists()]
        if gone:  # told before a reading is spent on the others
            raise DataError(f"{gone[0]} is gone; put it back, or rename the experiment")
        evaluation = self._intend(plan)
        data = self.experiment.data
        self.announce(f"reading the test split of {data.dataset}, for {len(trained)} networks at once")
        images = testset.read_test_split(data)
        found = run_in_process(evaluate_networks, networks, images, self.device, self.threads)
        scores = tuple(
            Score(record.key.stem, one.config, seed, accuracy, loss)
            for (one, seed, record), (accuracy, loss) in zip(trained, found, strict=True)
        )
        for one_score in scores:
            metrics = {"test_accuracy": one_score.test_accuracy, "test_loss": one_score.test_loss}
            self.spool.test(RunKey.from_stem(one_score.run), metrics)
        fresh = {one.config: _fresh(trained, one) for one in plan.everyone}
        evaluation = replace(
            evaluation,
            completed=_now(),
            digest=images.digest,
            n_images=images.count,
            scores=scores,
            fresh_val_accuracy={config: float(np.mean(values)) for config, values in fresh.items() if values},
        )
        labels = np.asarray(images.open()[1])
        samples = [self._sample(evaluation, one, labels) for one in plan.everyone]
        verdicts = compare.verdicts(samples[1:], samples[0], plan.level)
        evaluation = replace(evaluation, verdicts=tuple(vars(verdict) for verdict in verdicts))
        best = plan.finalists[0]
        # What was searched on other images is no measure of the same thing.
        if best.val_accuracy is not None and fresh[best.config] and not self.is_alone:
            curse = compare.winners_curse(best.val_accuracy, fresh[best.config], plan.level)
            evaluation = replace(evaluation, curse=curse)
        self._keep(replace(evaluation, champion=champion.winner(evaluation)))

    def _intend(self, plan: ConfirmationPlan) -> Evaluation:
        """Keep that the test split is about to be read; one that was cut off is begun once more."""
        evaluations = read_evaluations(self.study.kept(READINGS))
        if evaluations and not evaluations[-1].completed and evaluations[-1].plan == plan:
            evaluation = replace(evaluations[-1], begun=(*evaluations[-1].begun, _now()))
        else:
            dataset = self.experiment.data.dataset
            number = len(evaluations) + 1
            evaluation = Evaluation(number, plan, dataset, __version__, bool(evaluations), (_now(),))
        self._keep(evaluation)
        return evaluation

    def _keep(self, evaluation: Evaluation) -> None:
        evaluations = [
            one for one in read_evaluations(self.study.kept(READINGS)) if one.number != evaluation.number
        ]
        evaluations.append(evaluation)
        self.study.keep(READINGS, [one.to_dict() for one in evaluations])
        self._tell(evaluations)

    def _tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Bring the file and what MLflow is told up to what the study keeps; again changes nothing."""
        self.layout.readings.parent.mkdir(exist_ok=True)
        text = json.dumps([one.to_dict() for one in evaluations], indent=1)
        write_atomically(self.layout.readings, f"{text}\n".encode())
        there = self.spool.study()
        tags = {"test_readings": "; ".join(one.as_text() for one in evaluations)}
        if there and tags.items() - there.metadata.tags.items():
            self.spool.start_study(replace(there.metadata, tags={**there.metadata.tags, **tags}))
        complete = [one for one in evaluations if one.completed]
        if complete:
            chosen = champion.elected(self.experiment.name, self.experiment.question, complete[-1])
            if chosen and (there is None or there.champion != chosen):
                self.spool.champion(chosen)

    def _network(self, key: RunKey, finalist: Finalist) -> SavedNetwork:
        return SavedNetwork(finalist.configuration, self.layout.weights(key), self.layout.predictions(key))

    def _sample(self, evaluation: Evaluation, finalist: Finalist, labels: np.ndarray) -> compare.Sample:
        """Return what a finalist reached; a seed that gave no network is not a number."""
        by_seed = {one.seed: one for one in evaluation.scores if one.config == finalist.config}
        seeds = evaluation.plan.seeds
        reached = tuple(by_seed[s].test_accuracy if s in by_seed else math.nan for s in seeds)
        correct = None
        if len(by_seed) == len(seeds):
            files = [self.layout.predictions(RunKey.from_stem(by_seed[s].run)) for s in seeds]
            correct = np.stack([correct_predictions(file, labels) for file in files])
        return compare.Sample(finalist.config, reached, seeds, correct)


def _fresh(trained: Sequence[tuple[Finalist, int, TrialRecord]], finalist: Finalist) -> list[float]:
    """Return the validation accuracies of a finalist on the fresh seeds; none if nothing was validated."""
    return [record.value for one, _, record in trained if one == finalist and record.value is not None]


def _seeds(experiment: Experiment) -> tuple[int, ...]:
    """Return the fresh seeds; more of them begin with the same ones."""
    return tuple(derive_seed(experiment.search.seed, "confirm", n) for n in range(experiment.confirm.seeds))


def _shown(plan: ConfirmationPlan) -> str:
    labels = ", ".join(one.label for one in plan.finalists)
    on = "" if plan.train_on == "train" else ", validation images joined"
    return f"{labels} against the baseline, {len(plan.seeds)} fresh seeds each{on}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
