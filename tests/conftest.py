"""What several tests need: a small data set, a cache of their own, and a mirror on this machine."""

from __future__ import annotations

import gzip
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lenet_exp.base import messages
from lenet_exp.base.records import EpochResult
from lenet_exp.cli import program
from lenet_exp.config import loader
from lenet_exp.config.trainings import FixedTraining
from lenet_exp.data import idx, sources
from lenet_exp.data.datasets import find_dataset
from lenet_exp.data.images import ImageSet, training_images
from lenet_exp.data.sources import Dataset, Part
from lenet_exp.study.study import open_study
from tests.labs.cli_lab import EXPERIMENT, Command, Ended
from tests.labs.mirror import Mirror
from tests.labs.places import MINI_FOLDER
from tests.labs.sections import section
from tests.labs.swept import SWEPT, Swept


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets for this module, and nothing of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(tmp_path_factory.mktemp("data")))
        for name in ("LENET_EXP_ROOT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _hypothesis_knows_the_code() -> None:
    """Have Hypothesis read the project's constants before a test is timed: seconds, in a new clone."""

    @settings(max_examples=1, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text())
    def draw(_: str) -> None:
        pass

    draw()


@pytest.fixture(autouse=True)
def _steps_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no step told, which would depend on how fast the machine is; tests of steps set their own."""
    monkeypatch.setattr(messages, "TOLD_AFTER_S", 3600.0)


@pytest.fixture
def mini_folder() -> Path:
    """The folder of a piece of Fashion-MNIST: 1,000 training and 200 test images."""
    return MINI_FOLDER


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """The training images of that piece, in a cache that lasts for the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(tmp_path_factory.mktemp("data")))
        return training_images(section("fashion-mnist-mini", MINI_FOLDER))


@pytest.fixture(scope="session")
def swept_once(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """A sweep of a baseline and three trials, run once a session; tests only read it."""
    from lenet_exp.config import loader
    from lenet_exp.sweep import run as pipeline

    folder = tmp_path_factory.mktemp("swept")
    done = Swept(folder / "swept.toml", folder / "runs")
    done.file.write_text(SWEPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(folder / "data"))
        request = pipeline.Request(loader.load(done.file), done.root, workers=2, device="cpu")
        pipeline.run_main_job(request)
    return done


@pytest.fixture
def swept(swept_once: Swept, tmp_path: Path, data_cache: Path) -> Swept:
    """A copy of that sweep, which a test may change; MLflow's artifacts stay where they were."""
    shutil.copytree(swept_once.root, tmp_path / "runs")
    return Swept(swept_once.file, tmp_path / "runs")


@pytest.fixture
def data_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data sets, the only one there is."""
    folder = tmp_path / "data-cache"
    monkeypatch.setenv("LENET_EXP_DATA", str(folder))
    return folder


@pytest.fixture
def known(data_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The piece as a data set whose checksums are known beforehand, and which nobody has."""
    monkeypatch.setattr(sources, "SYSTEM_FOLDER", tmp_path / "system")
    own = find_dataset(section("known", MINI_FOLDER))
    return replace(own, train=_checked(own.train), test=_checked(own.test))


def _checked(part: Part) -> Part:
    return Part(_with_content(part.images), _with_content(part.labels))


def _with_content(file: idx.IdxFile) -> idx.IdxFile:
    with gzip.open(MINI_FOLDER / f"{file.name}.gz") as stream:
        content = idx.verify(stream, file, file.name)
    return replace(file, shape=content.shape, sha256=content.sha256)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    """A mirror that has nothing yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            answer = served.next_answer(self.path.rpartition("/")[2], wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and answer.ranges else 0
            body = answer.body[start:]
            self.send_response(206 if start and answer.status == 200 else answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.cut else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Mirror(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def command(
    tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command line in an empty folder, in which ``mini.toml`` lies."""
    monkeypatch.chdir(tmp_path)
    for name in ("LENET_EXP_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    Path("mini.toml").write_text(EXPERIMENT.format(folder=MINI_FOLDER))

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit, match=r"^\d+$") as end:
            program.main(arguments)
        out, err = (re.sub(r"\x1b\[[\d;]*m", "", text) for text in capsys.readouterr())
        return Ended(int(str(end.value)), out, err)

    return run


@pytest.fixture
def recorded(command: Command) -> Path:
    """A root folder with the study of a baseline and four trials, one of them pruned."""
    root = Path("mlruns").absolute()
    root.mkdir()
    mini = loader.load(Path("mini.toml"))
    study = open_study(mini, root)
    baseline = study.ask_fixed(
        FixedTraining("baseline", "baseline", "baseline", mini.baseline_configuration, 0)
    )
    attempts = [baseline, *(study.ask() for _ in range(4))]
    for attempt, value in zip(attempts, [0.5, 0.75, 0.25, 0.875, 0.125], strict=True):
        assert attempt is not None
        study.report(attempt.key, EpochResult(1, 1.0, 0.5, 1.0, value, 1000.0, 1.0))
        if value == 0.125:
            study.tell(attempt.key, "PRUNED", result={"reason": "pruned after epoch 1"})
        else:
            study.tell(attempt.key, "COMPLETE", value, {"examples_per_s": 1234.5, "n_parameters": 61_706})
    return root
