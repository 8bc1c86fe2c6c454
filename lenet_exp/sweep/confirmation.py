"""The confirmation: finalists and baseline on fresh seeds, then one reading of the test split for all.

Every decision is written to the study before it is acted on: the finalists before any of them is trained, the
reading of the test split before a file is opened. So a confirmation that was cut off goes on with the same
finalists, and every reading is on record, whatever happens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lenet_exp import __version__
from lenet_exp.base.errors import DataError, NoResultError
from lenet_exp.base.files import make_folder, write_atomically
from lenet_exp.base.messages import counted
from lenet_exp.base.records import RunKey
from lenet_exp.config.experiment import Experiment
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data import testset
from lenet_exp.data.split import division
from lenet_exp.execution.calls import run_in_process
from lenet_exp.execution.protocol import Conditions
from lenet_exp.progress.reporter import Reporter
from lenet_exp.results import champion
from lenet_exp.results.conclusion import seeds_needed
from lenet_exp.results.evaluation import (
    PLAN,
    READINGS,
    SPEEDS,
    ConfirmationPlan,
    Evaluation,
    Finalist,
    Score,
    last_reading_of,
    next_level,
    read_evaluations,
    settled_by,
)
from lenet_exp.results.verdicts.judging import Sample, verdicts, winners_curse
from lenet_exp.study.records import TrialRecord
from lenet_exp.sweep.finalists import (
    confirmation_training,
    confirmation_trainings,
    explained,
    freeze,
    in_words,
    is_as_set,
    nothing_new_in_words,
    second_stage,
    stages_in_words,
    utc_now,
)
from lenet_exp.training.evaluate import (
    SavedNetwork,
    alone_examples_per_s,
    correct_predictions,
    evaluate_networks,
    faults,
)
from lenet_exp.training.weights import SHA256, recorded_digest, restore_weights

if TYPE_CHECKING:
    from lenet_exp.execution.executor import LocalExecutor
    from lenet_exp.study.study import Study
    from lenet_exp.tracking.spool import Spool


def ensure_available(experiment: Experiment) -> None:
    """Make sure that the test images are on this machine, without opening them; download them if need be.

    Raises:
        DataError: If a file is missing and cannot be downloaded.
    """
    try:
        testset.ensure_available(experiment.data)
    except DataError as error:
        raise DataError(f"{error}; or leave the confirmation out with --no-confirm") from None


@dataclass
class Confirmation:
    """Confirms the finalists of one experiment.

    Attributes:
        conditions: Experiment, images, machine and limits, which all attempts share.
        study: Study that stores plan, trainings and readings.
        spool: Spool from which MLflow gets the test metrics and the champion.
        executor: Executor that trains networks again whose weights are missing or damaged.
        train: Function that does the fixed trainings it is given; returns True if all of them have ended.
        settle: Function that waits for uploads to end; called before each timing, which they would disturb.
        announce: Function that gets each line of text for the user.
        is_transferred: True if the finalists come from a search on another data set.
        reporter: Reporter that is told how the confirmation stands.
    """

    conditions: Conditions
    study: Study
    spool: Spool
    executor: LocalExecutor
    train: Callable[[Sequence[FixedTraining]], bool]
    settle: Callable[[], object]
    announce: Callable[[str], None]
    is_transferred: bool = False
    reporter: Reporter = field(default_factory=Reporter)

    def __post_init__(self) -> None:
        self.experiment, self.layout = self.conditions.experiment, self.conditions.layout
        self.device, self.threads = self.conditions.machine.devices[0], self.conditions.plan.threads

    def run(self, finalists: Callable[[], Sequence[Finalist]], *, again: bool = False) -> bool:
        """Train the finalists and read the test split, or go on where an earlier call was cut off.

        Args:
            finalists: Function that returns the finalists, the best first; called only to make a new plan.
            again: True to make a new plan, train and read once more, although there is a complete reading.

        Returns:
            True if the test split has been read; False if trainings are left, or there is no finalist.

        Raises:
            DataError: If test images are missing.
            DiskError: If the disk is full.
            NoResultError: If trainings of the confirmation gave no network, or one that has lost its weights
                cannot be done again; the test split is not read then.
            SweepInterruptedError: If the user stops the trainings.
        """
        plan = self._plan(finalists, again=again)
        if plan is not None:
            if (plan := self._train(plan)) is None:
                self.announce(
                    "confirmation: not everything is trained, so the test split is not read;"
                    " run the same command again to go on"
                )
                return False
            if last := last_reading_of(plan, read_evaluations(self.study.kept(READINGS))):
                self.announce(nothing_new_in_words(last))
            else:
                self._measure_speeds(plan)
                self._read(plan)
        evaluations = read_evaluations(self.study.kept(READINGS))
        if not evaluations:
            return False
        self._publish(evaluations)
        return True

    def _plan(self, finalists: Callable[[], Sequence[Finalist]], *, again: bool) -> ConfirmationPlan | None:
        """Return the plan to carry out; None if its reading is complete, or there is no finalist.

        Args:
            finalists: Function that returns the finalists, the best first; called only to make a new plan.
            again: True to replace the stored plan although its reading is complete.
        """
        kept = self.study.kept(PLAN)
        plan = ConfirmationPlan.from_dict(kept) if kept else None
        evaluations = read_evaluations(self.study.kept(READINGS))
        if plan is not None and not again:
            if last_reading_of(plan, evaluations) is None:
                self.announce(f"confirmation: {in_words(plan)}, frozen {plan.frozen}")
                return plan
            if self.study.n_finished > plan.n_finished or not is_as_set(plan, self.experiment):
                self.announce(
                    f"confirmed as of {plan.frozen}: {in_words(plan)};"
                    f" trials or settings are new since then; to confirm anew, run '{self._command_again()}'"
                )
            return None
        if again and evaluations and not evaluations[-1].completed and evaluations[-1].plan == plan:
            return plan  # the repeated reading was cut off, and goes on
        skipped = max((evaluation.plan.n_seeds_before for evaluation in evaluations), default=0)
        plan = freeze(self.experiment, finalists(), self.study.n_finished, skipped)
        if not plan.finalists:
            return None
        self.study.keep(PLAN, plan.to_dict())
        self.announce(f"confirmation: {in_words(plan)}")
        if evaluations:
            level, spent = next_level(evaluations, plan.level), sum(e.level for e in evaluations)
            self.announce(
                f"the test split has been read {counted(len(evaluations), 'time')}, at a level of {spent:.4g}"
                f" of {plan.level:.3g}; another reading gets {level:.3g}"
            )
        return plan

    def _train(self, plan: ConfirmationPlan) -> ConfirmationPlan | None:
        """Train the networks of a plan, of both its stages if the number of its seeds is found.

        Returns:
            The plan with all its seeds; None if trainings are left.

        Raises:
            NoResultError: If trainings gave no network.
        """
        while True:
            stage = plan.first_stage
            n_later = len(plan.everyone) * stage.max_seeds if stage and stage.spreads is None else 0
            self.reporter.phase("confirmation", in_words(plan), n_seeds=len(plan.seeds), n_later=n_later)
            if not self.train(confirmation_trainings(plan, is_transferred=self.is_transferred)):
                return None
            self._ensure_trained(plan)
            values = {(f.config, seed): record.value for f, seed, record in self._trained(plan)}
            level = next_level(self._earlier(plan), plan.level)
            staged = second_stage(plan, values, self.experiment, level)
            if staged == plan:
                return plan
            plan = staged
            self.study.keep(PLAN, plan.to_dict())
            self.announce(f"{stages_in_words(plan)}; {in_words(plan)}")

    def _earlier(self, plan: ConfirmationPlan) -> list[Evaluation]:
        """Return the evaluations before that of a plan, which may itself be on record as cut off."""
        evaluations = read_evaluations(self.study.kept(READINGS))
        if evaluations and not evaluations[-1].completed and evaluations[-1].plan == plan:
            return evaluations[:-1]
        return evaluations

    def _ensure_trained(self, plan: ConfirmationPlan) -> None:
        """Make sure, before a reading is spent, that it can give the verdicts: refuse it if a network lacks.

        Raises:
            NoResultError: If a training has no network and may have one after another attempt, or if the
                baseline or every finalist has none.
        """
        records = self._records(plan)
        lacking = [(f, record) for f, _, record in records if record is None or record.state != "COMPLETE"]
        mendable = [f for f, record in lacking if record is None or not record.hopeless]
        n_finalists = sum(f != plan.baseline for f, _ in lacking)
        is_baseline_complete = all(f != plan.baseline for f, _ in lacking)
        if is_baseline_complete and not mendable and n_finalists < len(plan.finalists) * len(plan.seeds):
            return
        raise NoResultError(
            f"not confirmed, and the test split is not read, as {len(lacking)} of {len(records)} trainings"
            f" of the confirmation gave no network: {explained([r for _, r in lacking if r], is_needed=True)}"
        )

    def _measure_speeds(self, plan: ConfirmationPlan) -> None:
        """Measure the training speed of each configuration that has none yet, while nothing else runs."""
        speeds: dict[str, float] = self.study.kept(SPEEDS) or {}
        images = self.conditions.images
        split = division(self.experiment.data, images.open()[1])
        conditions = self.device, self.threads, plan.seeds[0], self.experiment.training
        for finalist in plan.everyone:
            if finalist.config in speeds:
                continue
            self.reporter.phase("timing", finalist.label, line=f"timing {finalist.label} alone")
            self.settle()
            speed = run_in_process(alone_examples_per_s, finalist.configuration, images, split, *conditions)
            if speed is not None:
                speeds[finalist.config] = speed
                self.study.keep(SPEEDS, speeds)
                self.announce(f"{finalist.label}: {speed:,.0f} examples/s alone")

    def _trained(self, plan: ConfirmationPlan) -> list[tuple[Finalist, int, TrialRecord]]:
        """Return finalist, seed and record of each training of the plan that is complete."""
        return [(f, seed, r) for f, seed, r in self._records(plan) if r and r.state == "COMPLETE"]

    def _records(self, plan: ConfirmationPlan) -> list[tuple[Finalist, int, TrialRecord | None]]:
        return [
            (finalist, seed, self.study.fixed_record(confirmation_training(finalist, plan, seed)))
            for finalist in plan.everyone
            for seed in plan.seeds
        ]

    def _command_again(self) -> str:
        dataset = f" --dataset {self.experiment.data.dataset}" if self.is_transferred else ""
        return self.experiment.command(f"confirm --again{dataset}", self.layout.root)

    def _read(self, plan: ConfirmationPlan) -> None:
        """Read the test split: record that it is read, open it, evaluate all networks, record the results."""
        trained = self._trained(plan)
        networks = self._networks(trained, plan)  # all of them before a reading is spent on any
        evaluation = self._begin_reading(plan)
        data = self.experiment.data
        self.reporter.phase("reading", data.dataset)
        self.announce(
            f"reading the test split of {data.dataset}, for {counted(len(trained), 'network')} at once"
        )
        images = testset.read_test_split(data)
        measured = run_in_process(evaluate_networks, networks, images, self.device, self.threads)
        scores = tuple(
            Score(record.key.stem, finalist.config, seed, accuracy, loss)
            for (finalist, seed, record), (accuracy, loss) in zip(trained, measured, strict=True)
        )
        for score in scores:
            metrics = {"test_accuracy": score.test_accuracy, "test_loss": score.test_loss}
            self.spool.test(RunKey.from_stem(score.run), metrics)
        fresh = {finalist.config: _fresh(trained, finalist) for finalist in plan.everyone}
        evaluation = replace(
            evaluation,
            completed=utc_now(),
            digest=images.digest,
            n_images=images.count,
            scores=scores,
            fresh_val_accuracy={config: float(np.mean(values)) for config, values in fresh.items() if values},
        )
        labels = np.asarray(images.open()[1])
        samples = [self._sample(evaluation, finalist, labels) for finalist in plan.everyone]
        settled = settled_by(self._earlier(plan), plan)
        judged = verdicts(samples[1:], samples[0], evaluation.level, settled)
        evaluation = replace(evaluation, verdicts=tuple(vars(verdict) for verdict in judged))
        best = plan.finalists[0]
        # The accuracy of a search on another data set cannot be compared with this one's.
        if best.val_accuracy is not None and fresh[best.config] and not self.is_transferred:
            curse = winners_curse(best.val_accuracy, fresh[best.config], plan.level)
            evaluation = replace(evaluation, curse=curse)
        level = next_level([*self._earlier(plan), evaluation], plan.level)
        evaluation = replace(
            evaluation,
            to_settle=seeds_needed(evaluation, self.experiment.confirm.margin, level),
            champion=champion.winner(evaluation),
        )
        self._keep(evaluation)

    def _begin_reading(self, plan: ConfirmationPlan) -> Evaluation:
        """Record in the study that the test split is about to be read, and return that record.

        If a reading of this plan was cut off, its record gets one more time of start.
        """
        evaluations, earlier = read_evaluations(self.study.kept(READINGS)), self._earlier(plan)
        if len(evaluations) > len(earlier):
            evaluation = replace(evaluations[-1], begun=(*evaluations[-1].begun, utc_now()))
        else:
            number, dataset = len(earlier) + 1, self.experiment.data.dataset
            basics = number, plan, dataset, __version__, bool(earlier), (utc_now(),)
            evaluation = Evaluation(
                *basics,
                study=self.study.lineage.id,
                spent=next_level(earlier, plan.level),
                spent_before=sum(other.level for other in earlier),
            )
        self._keep(evaluation)
        return evaluation

    def _keep(self, evaluation: Evaluation) -> None:
        """Store an evaluation in the study, in place of its earlier version, and write all to their file."""
        kept = read_evaluations(self.study.kept(READINGS))
        evaluations = [*(other for other in kept if other.number != evaluation.number), evaluation]
        self.study.keep(READINGS, [evaluation.to_dict() for evaluation in evaluations])
        self._publish(evaluations)

    def _publish(self, evaluations: Sequence[Evaluation]) -> None:
        """Write all evaluations to their file, and what is new in them to the spool; safe to repeat."""
        make_folder(self.layout.readings.parent)
        text = json.dumps([evaluation.to_dict() for evaluation in evaluations], indent=1)
        write_atomically(self.layout.readings, f"{text}\n".encode())
        study_log = self.spool.study()
        tags = {"test_readings": "; ".join(evaluation.as_text() for evaluation in evaluations)}
        if study_log and tags.items() - study_log.metadata.tags.items():
            metadata = replace(study_log.metadata, tags={**study_log.metadata.tags, **tags})
            self.spool.start_study(metadata)
        complete = [evaluation for evaluation in evaluations if evaluation.completed]
        if complete:
            chosen = champion.elected(self.experiment.name, self.experiment.question, complete[-1])
            if chosen and (study_log is None or study_log.champion != chosen):
                self.spool.champion(chosen)

    def _networks(
        self, trained: Sequence[tuple[Finalist, int, TrialRecord]], plan: ConfirmationPlan
    ) -> list[SavedNetwork]:
        """Return the networks of a plan; those whose weights are damaged are trained again first."""
        while True:
            networks = [self._network(record, finalist) for finalist, _, record in trained]
            wrong = run_in_process(faults, networks, self.conditions.images.image_size)
            if not any(wrong):
                return networks
            for (_, _, record), fault in zip(trained, wrong, strict=True):
                if fault:
                    self.announce(f"warning: {fault.partition('; ')[0]}; training it again")
                    kept = {SHA256: self.study.kept(SHA256)}
                    arguments = self.conditions, self.executor, kept, self.study.keep
                    self.announce(restore_weights(record, plan.train_on, *arguments))

    def _network(self, record: TrialRecord, finalist: Finalist) -> SavedNetwork:
        """Return the network that an attempt saved, with the path for its predictions."""
        weights, predictions = self.layout.weights(record.key), self.layout.predictions(record.key)
        digest = recorded_digest(record.key, record.result, {SHA256: self.study.kept(SHA256)})
        return SavedNetwork(finalist.configuration, weights, predictions, digest)

    def _sample(self, evaluation: Evaluation, finalist: Finalist, labels: np.ndarray) -> Sample:
        """Return a finalist's test accuracies, one for each seed: NaN if the training on that seed failed."""
        by_seed = {score.seed: score for score in evaluation.scores if score.config == finalist.config}
        seeds = evaluation.plan.seeds
        accuracies = tuple(by_seed[s].test_accuracy if s in by_seed else math.nan for s in seeds)
        correct = None
        if len(by_seed) == len(seeds):
            files = [self.layout.predictions(RunKey.from_stem(by_seed[s].run)) for s in seeds]
            correct = np.stack([correct_predictions(file, labels) for file in files])
        return Sample(finalist.config, accuracies, seeds, correct)


def _fresh(trained: Sequence[tuple[Finalist, int, TrialRecord]], finalist: Finalist) -> list[float]:
    """Return a finalist's validation accuracies on the fresh seeds; empty without a validation split."""
    return [record.value for other, _, record in trained if other == finalist and record.value is not None]
