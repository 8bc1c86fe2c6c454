"""Kills workers and drivers at random instants, and holds what is left against a ledger.

    python -m tests.crash.kills --kills 200 [--real 12] [--seed 0] [--round 100]

A round is one study. Whatever was acknowledged (a line of the command, or a trial that the study has as
ended when its driver is dead) is entered in a ledger, and must be there unchanged ever after. At the end of a
round the command is left alone, and then study, MLflow, CSV and ledger must agree: see `judge`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lenet_exp.base.records import RunKey
from lenet_exp.results.leaderboard import ranked
from lenet_exp.results.table import Table, to_csv
from lenet_exp.study.records import TrialRecord
from lenet_exp.study.trials import counts
from lenet_exp.tracking import store
from lenet_exp.tracking.spool import Spool
from tests.labs import fake_trainer
from tests.labs.crash_lab import Command, Zygote, kill, until
from tests.labs.mlflow_lab import empty_store
from tests.labs.places import MINI_FOLDER, PROJECT
from tests.labs.studies import read_records

#: Of all kills, the share that is for the driver.
DRIVERS = 0.1
#: Of all kills, the share before which the sweep is left alone for a while.
QUIET = 0.2
#: Trials in each stage; a sweep that is done gets as many more.
STAGE = 15

#: Some trials repeat another's configuration; were it most, there would be no training left to kill.
EXPERIMENT = """\
name = "harness"
[data]
dataset = "fashion-mnist-mini"
folder = "{folder}"
validation = 200
limit = 200
[baseline]
precision = "float32"
[training]
epochs = 4
[space]
pooling = ["avg", "max"]
kernel_size_1 = [3, 5]
channels = {{ low = 4, high = 16 }}
lr = [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]
[search]
trials = 0
sampler = "random"
pruner = "median"
startup_trials = 3
"""


@dataclass
class Ledger:
    """What was acknowledged.

    Attributes:
        ended: Every attempt that the study had as ended, at some time.
        said: What the command said of an attempt's end, by its label.
    """

    ended: dict[RunKey, TrialRecord] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def enter(self, records: list[TrialRecord], err: str) -> None:
        """Take down what a driver left, after holding it against what was entered before."""
        now = {record.key: record for record in records}
        lost = [key.stem for key in self.ended if key not in now]
        changed = [key.stem for key in self.ended if key in now and now[key] != self.ended[key]]
        assert not lost, f"lost: {lost}"
        assert not changed, f"changed: {changed}"
        self.ended = now
        for label, value in re.findall(r"^(trial \d+|baseline): val_accuracy (0\.\d{4}),", err, re.M):
            assert self.said.setdefault(label, value) == value, f"{label} was announced twice, differently"
        complete = {r.label: r.value for r in records if r.state == "COMPLETE"}
        for label, value in self.said.items():
            assert label in complete, f"{label} was announced and is not complete"
            assert f"{complete[label]:.4f}" == value, f"{label} was announced as {value}"


@dataclass
class Tally:
    """What a run of the harness did."""

    kills: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    trials: int = 0
    attempts: int = 0
    resumed: int = 0


class Round:
    """One study, and everything that happens to it."""

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        *,
        seed: int = 0,
        tally: Tally | None = None,
        trials: int = STAGE,
        pace_s: float = 0.05,
    ) -> None:
        """Prepare a study in ``folder``.

        Args:
            zygote: Starts the command.
            folder: An empty one.
            seed: Of the schedule of kills.
            tally: What is done is added to it.
            trials: Of the first stage.
            pace_s: Seconds until a kill, at most.
        """
        self._zygote, self._folder, self._pace_s = zygote, folder, pace_s
        self._tally = tally or Tally()
        self._random = random.Random(seed)
        self._ledger = Ledger()
        self._trials = trials
        self._root = folder / "root"
        self._root.mkdir()
        # MLflow takes two seconds to make its store.
        (self._root / "mlflow.db").write_bytes(empty_store())
        self._name = "harness"
        self._stage = STAGE
        experiment = EXPERIMENT.format(folder=MINI_FOLDER)
        (folder / "experiment.toml").write_text(experiment)

    def run(self, kills: int) -> None:
        """Kill as often, then let the sweep end, and judge."""
        done = 0
        while done < kills:
            command = self.start()
            done += self._disturb(command, kills - done)
            self.settle(command)
            if command.code == 0:
                self._trials += self._stage
            else:
                assert command.code == -signal.SIGKILL, command.err
        self.finish()

    def finish(self, *arguments: str) -> None:
        """Let the sweep end, and judge."""
        command = self.start(*arguments)
        assert command.wait() == 0, command.err
        self.settle(command)
        if Spool(
            self._root / self._name / "spool"
        ).pending():  # where the machine is slow MLflow needs longer
            assert self.start().wait() == 0
        self.judge()

    def start(self, *arguments: str, **environment: str) -> Command:
        """Start the command, once more."""
        self._tally.lives += 1
        arguments = ("--root", "root", "--trials", str(self._trials), "--workers", "2", *arguments)
        return self._zygote.start(
            "sweep", "experiment.toml", "--no-confirm", *arguments, folder=self._folder, **environment
        )

    def _disturb(self, command: Command, most: int) -> int:
        """Kill until the driver is dead or done, or often enough; return how often."""
        done = 0
        while done < most:
            if self._random.random() < DRIVERS:
                # Also in its first moments, when it repairs what the one before it left.
                time.sleep(self._random.uniform(0, self._pace_s if done else 10 * self._pace_s))
                killed = kill(command.pid)
                self._tally.kills["driver"] += killed
                return done + killed
            if self._random.random() < QUIET:
                time.sleep(self._random.uniform(0, 10 * self._pace_s))
            until(lambda: bool(command.workers()) or command.poll() is not None, command)
            time.sleep(self._random.uniform(0, self._pace_s))
            workers = command.workers()
            if workers and kill(self._random.choice(workers)):
                self._tally.kills["worker"] += 1
                done += 1
            elif command.poll() is not None:
                break
        return done

    def settle(self, command: Command) -> None:
        """Wait for the end, of the driver and of every process of its own, and read what it left."""
        command.wait()
        assert "Traceback" not in command.err, command.err
        self._ledger.enter(read_records(self._name, self._root) or [], command.err)

    def judge(self) -> None:
        """Hold study, spool, MLflow, CSV and disk against each other and the ledger."""
        records = read_records(self._name, self._root) or []
        self._judge_study(records)
        self._judge_mlflow(records)
        table = pd.read_csv(self._root / self._name / "leaderboard.csv")
        run_ids = Spool(self._root / self._name / "spool").run_ids()
        whole = pd.read_csv(_csv(ranked(records, run_ids), self._folder))
        pd.testing.assert_frame_equal(table, whole)
        left = list((self._root / self._name / "checkpoints").rglob("*epoch-*"))
        assert not left, f"checkpoints of trainings that are over: {left}"
        self._tally.trials += self._trials
        self._tally.attempts += len(records)

    def _judge_study(self, records: list[TrialRecord]) -> None:
        with closing(sqlite3.connect(self._root / "study.db")) as database:
            assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
            states = dict(database.execute("SELECT state, COUNT(*) FROM trials GROUP BY state"))
            numbers = database.execute("SELECT number FROM trials WHERE study_id = 1 ORDER BY number")
            assert [number for (number,) in numbers] == list(range(max(r.number for r in records) + 1))
        assert not {"RUNNING", "WAITING"} & set(states), states
        budget = sum(counts(record) for record in records)
        assert budget == self._trials, f"{budget} trials of {self._trials}"
        # A trial's seed is its first attempt's; a retry that was queued twice would have two ends.
        ends = Counter(r.seed for r in records if r.key.role == "trial" and not r.superseded)
        assert max(ends.values(), default=1) == 1, "a trial has ended twice"
        trained = Counter(
            (r.key.role, r.config)
            for r in records
            if r.state == "COMPLETE" and "duplicate_of" not in r.result
        )
        twice = [name for name, times in trained.items() if times > 1]
        assert not twice, f"completed twice: {twice}"
        for record in records:
            if record.state == "COMPLETE":
                assert sorted(record.history) == list(range(1, record.configuration.epochs + 1)), record
                self._judge_value(record)

    def _judge_value(self, record: TrialRecord) -> None:
        """See that a completed attempt, resumed or not, has the value of one that nothing disturbed."""
        if "duplicate_of" not in record.result:
            assert record.value == fake_trainer.expected(record.configuration, record.seed), record

    def _judge_mlflow(self, records: list[TrialRecord]) -> None:
        client = store.connect(store.local_uri(self._root))
        experiment = client.get_experiment_by_name(self._name)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], max_results=50_000)
        by_key = {run.data.tags["lenet_exp.key"].partition("/")[2]: run for run in runs}
        assert len(by_key) == len(runs), "two runs of one attempt"
        spool = Spool(self._root / self._name / "spool")
        assert set(by_key) == set(spool.stems()), set(by_key) ^ set(spool.stems())
        assert not spool.pending(), f"not carried: {spool.pending()}"
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
        assert by_key.pop("study").info.status == "FINISHED"
        told = {record.key.stem: record for record in records}
        for stem, run in by_key.items():
            record = told[stem]
            assert run.info.status == status[record.state], stem
            if record.state == "COMPLETE":
                points = client.get_metric_history(run.info.run_id, "val_accuracy")
                assert {p.step: p.value for p in points} == record.history, stem
                assert len(points) == len(record.history), f"{stem} has a point twice"


class RealRound(Round):
    """The quick experiment, trained in earnest; what was resumed is replayed in one piece, and compared."""

    def __init__(self, zygote: Zygote, folder: Path, *, seed: int, tally: Tally) -> None:
        super().__init__(zygote, folder, seed=seed, tally=tally, trials=4, pace_s=1.5)
        self._name, self._stage = "quick", 2
        shutil.copy(PROJECT / "experiments" / "quick.toml", folder / "experiment.toml")

    def start(self, *arguments: str, **environment: str) -> Command:
        """Start the command, once more, for three epochs."""
        return super().start(*arguments, "--set", "training.epochs=3", **environment)

    def _judge_value(self, record: TrialRecord) -> None:
        if record.key.role != "trial" or record.key.attempt == 1 or "duplicate_of" in record.result:
            return
        arguments = ["--experiment", "experiment.toml", "--root", "root", "--set", "training.epochs=3"]
        again = self._zygote.start("replay", str(record.key.trial), *arguments, folder=self._folder)
        assert again.wait() == 0, again.out + again.err
        self._tally.resumed += 1


def _csv(table: Table, folder: Path) -> Path:
    path = folder / "whole.csv"
    path.write_text(to_csv(table))
    return path


def main() -> None:
    """Run the rounds, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--real", type=int, default=12, help="kills of real training, on top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, default=100, help="kills of one study")
    chosen = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="crash-"))
    played = {"LENET_EXP_TRAINER": "tests.labs.fake_trainer", "FAKE_TRAINER_EPOCH_S": "0.005"}
    _rounds(home / "played", Round, chosen.kills, chosen.round, chosen.seed, OMP_NUM_THREADS="1", **played)
    _rounds(home / "real", RealRound, chosen.real, chosen.round, chosen.seed)
    shutil.rmtree(home)


def _rounds(
    home: Path, kind: type[Round], kills: int, size: int, first_seed: int, **environment: str
) -> None:
    began, used, tally = time.monotonic(), sum(os.times()[:4]), Tally()
    home.mkdir()
    if not kills:
        return
    zygote = Zygote(**environment)
    for number, first in enumerate(range(0, kills, size)):
        folder = home / str(number)
        folder.mkdir()
        seed = first_seed * 1000 + number
        try:
            kind(zygote, folder, seed=seed, tally=tally).run(min(size, kills - first))
        except BaseException:
            sys.stderr.write(f"round {number}, seed {seed}: what is left is in {folder}\n")
            raise
    zygote.close()
    resumed = f", {tally.resumed} resumed ones trained again bit for bit" if tally.resumed else ""
    sys.stdout.write(
        f"{home.name}: {tally.kills.total()} kills ({tally.kills['worker']} of workers, "
        f"{tally.kills['driver']} of drivers) in {tally.lives} lives: {tally.trials} trials in "
        f"{tally.attempts} attempts, nothing lost{resumed}; {time.monotonic() - began:.0f} s, "
        f"{sum(os.times()[:4]) - used:.0f} s of CPU\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
