import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lenet_exp.base.errors import NoResultError
from lenet_exp.cli import bench, program
from lenet_exp.cli.bench import Question, Setting, sweep_throughput
from lenet_exp.config.hyperparameters import PRESETS, configuration, overlay
from lenet_exp.data.images import ImageSet
from lenet_exp.execution.executor import LocalExecutor

KEYS = [
    "usual_examples_per_s",
    "examples_per_s",
    "speedup",
    "peak_gflops",
    "share_of_peak",
    "harness_share",
    "first_step_s",
    "workers",
    "threads",
    "precision",
]


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    executor = LocalExecutor()
    yield executor
    executor.close()


@pytest.mark.slow
def test_the_whole_run_gives_every_key_and_they_agree(
    mini_folder: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ten keys first, finite and above zero, and the shares are those of the rates."""
    # A user's own stores, to which nothing goes.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("LENET_EXP_STORAGE", "postgresql://127.0.0.1:9/study")
    own = ["data.dataset=mini", f"data.folder={mini_folder}", "data.validation=200", "training.batch_size=64"]
    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(
            [
                "bench",
                "--json",
                "--seconds",
                "0.1",
                "--rounds",
                "1",
                *(word for item in own for word in ("--set", item)),
            ]
        )
    printed, told = capsys.readouterr()

    answer: dict[str, Any] = json.loads(printed)

    assert list(answer)[:10] == KEYS
    numbers = [answer[key] for key in KEYS if key != "precision"]
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert answer["speedup"] == pytest.approx(answer["examples_per_s"] / answer["usual_examples_per_s"])
    used = answer["examples_per_s"] * answer["flops_per_example"] / 1e9
    assert answer["share_of_peak"] == pytest.approx(used / answer["peak_gflops"])
    assert answer["examples_per_s"] == max(answer["settings"].values())
    assert answer["harness_share"] == pytest.approx(answer["harness_s"] / 10)
    assert answer["precision"] in ("float32", "bfloat16")
    assert "the usual loop" in told


def test_the_table_shows_every_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``--json`` people read the same keys, and are told of a busy machine."""
    asked: list[Question] = []
    answer: dict[str, Any] = dict(
        **dict.fromkeys(KEYS[:7], 1.0),
        workers=2,
        threads=1,
        precision="float32",
        device="cpu",
        machine="[a] processor",
        cores=2,
        load=3.0,
        settings={"2 x 1 thread": 1.0},
        why="there is nothing else",
        flops_per_example=2_000_000,
        harness_s=10.0,
        usual_threads=2,
        rounds=1,
        for_s=1.0,
        versions={},
    )

    def run(question: Question, _: object) -> dict[str, Any]:
        asked.append(question)
        return answer

    monkeypatch.setattr(bench, "run_bench", run)

    with pytest.raises(SystemExit, match=r"^0$"):
        program.main(["bench", "--seconds", "2", "--device", "cpu"])

    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].strip() == "[a] processor, 2 cores, on cpu"
    assert [line.split()[0] for line in lines[1:11]] == KEYS
    assert "measure again when it is quiet" in shown.err
    assert (asked[0].for_s, asked[0].device, asked[0].path.name) == (2.0, "cpu", "bench.toml")


def test_ours_is_measured_in_processes_that_are_gone_afterwards(
    executor: LocalExecutor, mini: ImageSet
) -> None:
    """Two workers at once have a rate together, and nothing is left running."""
    network = configuration(overlay(PRESETS["lenet"], {"channels": 4, "fc_layers": 1}))

    rate = sweep_throughput(executor, network, mini, Setting(2, 1), for_s=0.1)

    assert rate > 0
    assert executor.running == 0


def test_a_training_that_ends_is_no_measurement(executor: LocalExecutor, mini: ImageSet) -> None:
    """What diverges cannot be measured, and its reason is told."""
    network = configuration(overlay(PRESETS["lenet"], {"optimizer": "sgd", "lr": 100.0, "loss": "mse"}))

    with pytest.raises(NoResultError, match="cannot be measured: a training diverged"):
        sweep_throughput(executor, network, mini, Setting(1, 1), for_s=5)

    assert executor.running == 0
