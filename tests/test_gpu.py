"""The script that measures a card, run on a CPU and with no more installed than it asks for."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch

from lenet_exp.data.images import ImageSet
from tests import gpu
from tests.labs import cuda_checks
from tests.labs.gpu_report import Row, Step
from tests.labs.places import PROJECT

#: All that has to be installed, with what these packages themselves require.
NEEDED = ("torch", "numpy", "pydantic", "safetensors")


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Return packages and all that they require here, extras left out."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        with suppress(PackageNotFoundError):  # what is for another system or Python is not here
            requires = distribution(name).requires or []
            if name not in found:
                found.add(name)
                left += [re.split(r"[^\w.-]", line)[0] for line in requires if "extra ==" not in line]
    return found


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as other tests run beside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages that are needed: with ``-S``, Python finds nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    for name in with_requirements(NEEDED):
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(package.locate_file(top))))
    return folder


def run_script(bare: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # A card that is here is hidden; one thread, as other tests run beside this one.
    environment = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-S", str(PROJECT / "tests" / "gpu.py"), *arguments],
        env=environment | {"PYTHONPATH": str(bare)},
        cwd=bare.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_measures_a_cpu_where_little_is_installed(bare: Path, tmp_path: Path) -> None:
    """All is measured that a CPU has, the rest says why it is not, and the table is printed and written."""
    output = tmp_path / "table.md"

    done = run_script(bare, "--output", str(output), "--seconds", "0.1", "--rounds", "2")

    assert (done.returncode, done.stderr) == (0, "")
    table = output.read_text()
    assert table.startswith("# Measured on ")
    assert f"\n\n{table}" in done.stdout
    values = dict(re.findall(r"^\| (.*?) \| (.*?) \| .+ \|$", table, re.MULTILINE))
    for check in cuda_checks.CHECKS:
        assert values[f"`{check.__name__}`"] == "not measured: no CUDA device"
    assert re.fullmatch(r"not measured: no (.*, )?mlflow, optuna, .* here", values["a trial of a sweep"])
    assert "no PIL and torchvision here" in table
    measured = {name for name, value in values.items() if "not measured" not in value}
    for name in ("`examples_per_s`, float32, eager", "`speedup`, bfloat16, eager"):
        assert name in measured
    assert sum("an attempt" in name for name in measured) == 3


def test_what_is_not_begun_in_time_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The table is there at once; that is a failure where there was a card to be checked."""
    code = gpu.main(["--budget", "0"])

    out = capsys.readouterr().out
    assert code == int(torch.cuda.is_available())
    assert "| an attempt | not measured: out of time |" in out


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """One line says so, before anything is measured."""
    with pytest.raises(SystemExit, match=r"^error: .*/none: no such folder"):
        gpu.main(["--data", str(tmp_path / "none")])


def test_a_check_that_fails_fails_the_run_and_the_others_are_still_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its reason is in the table, its traceback on stderr, and what is only wanting is no failure."""

    def broken() -> Generator[Row]:
        yield Row("before", "1 s", "so far")
        raise AssertionError("two | three\nand more")

    def endless() -> Generator[Row]:
        time.sleep(60)
        yield Row("never", "", "")

    def well() -> Generator[Row]:
        yield Row("well", "held", "")

    output = tmp_path / "table.md"
    flags = ["--output", str(output)]
    lacks = [
        Step("wanting", broken, wanting="no such thing", check=True),
        Step("endless", endless, most_s=0.05),
    ]
    harmless = [*lacks, Step("well", well, check=True)]

    assert gpu.main(flags, lambda _: harmless) == 0
    assert gpu.main(flags, lambda _: [Step("broken", broken), *harmless]) == 1
    assert gpu.main(flags, lambda _: [Step("endless", endless, most_s=0.05, check=True)]) == 1

    out, err = capsys.readouterr()
    assert r"| broken | failed: AssertionError: two \| three |" in out
    assert "| wanting | not measured: no such thing |" in out
    assert "| well | held |" in out
    assert "and more" in err


def test_the_checks_of_a_card_are_the_tests_marked_for_one() -> None:
    """Each is a test of the same name that calls it, so that the script runs what pytest runs."""
    marked: dict[str, str] = {}
    marks = 0
    for path in (PROJECT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        marks += sum(ast.unparse(node) == "pytest.mark.cuda" for node in ast.walk(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and "pytest.mark.cuda" in map(
                ast.unparse, node.decorator_list
            ):
                marked[node.name] = ast.unparse(node)

    assert marks == len(marked)
    assert set(marked) == {f"test_{check.__name__}" for check in cuda_checks.CHECKS}
    for name, code in marked.items():
        assert f"cuda_checks.{name.removeprefix('test_')}(" in code


@pytest.mark.usefixtures("_one_thread")
@pytest.mark.parametrize("check", cuda_checks.CHECKS)
def test_the_checks_of_a_card_hold_of_a_cpu(check: cuda_checks.Check, mini: ImageSet) -> None:
    """A CPU trains what a CPU trains, so that only a card can break them."""
    check(cuda_checks.whole(mini), torch.device("cpu"))


@pytest.mark.usefixtures("_one_thread")
def test_trainings_that_differ_by_more_than_rounding_do_not_agree(mini: ImageSet) -> None:
    """Thirty labels of a thousand changed are noticed."""
    images, cpu = cuda_checks.whole(mini), torch.device("cpu")
    right = cuda_checks.trained(images, cpu)
    images.labels[:30] = (images.labels[:30] + 1) % 10
    wrong = cuda_checks.trained(images, cpu)

    with pytest.raises(AssertionError, match=r"train_loss of epoch \d"):
        cuda_checks.agree(right, wrong)
    with pytest.raises(AssertionError, match="3 epochs against 2"):
        cuda_checks.agree(right, right[:2])
