"""All that ``tests/gpu.py`` does, in order: checks of the card, then what is measured."""

from __future__ import annotations

import tomllib
from collections.abc import Generator, Sequence
from functools import partial
from importlib.util import find_spec

from lenet_exp.execution.resources import measure, plan
from tests.labs.cuda_checks import CHECKS, Check, whole
from tests.labs.gpu_attempts import attempts
from tests.labs.gpu_bench import Bench, no_cuda
from tests.labs.gpu_report import Row, Step
from tests.labs.gpu_speed import Way, rates
from tests.labs.places import PROJECT


def steps(bench: Bench) -> list[Step]:
    """Return all steps, what may take longest at the end."""
    eager = [Way(precision) for precision in ("float32", "bfloat16")]
    compiled = [Way(precision, compiled=True) for precision in ("float32", "bfloat16")]
    small_sweep = "a small sweep as a user runs it"
    return [
        *(check_step(bench, check) for check in CHECKS),
        Step("an attempt", partial(attempts, bench), "as in a sweep", least_s=20, most_s=90),
        speed_step(bench, "eager", eager),
        *(speed_step(bench, str(way), [way]) for way in compiled),
        Step("a trial of a sweep", partial(sweep, bench), small_sweep, missing(), least_s=15, most_s=60),
    ]


def speed_step(bench: Bench, name: str, ways: Sequence[Way]) -> Step:
    """Return the step that measures some ways beside the usual loop; a card alone has compiled ones.

    Args:
        bench: The device, the images and the time.
        name: Name of the ways together.
        ways: Ways in which ours computes a step.
    """
    in_turn_s = (1 + len(ways)) * bench.rounds * bench.for_s
    return Step(
        f"`examples_per_s`, {name}",
        partial(rates, bench, ways),
        "our loop and the usual one in turn",
        no_cuda(bench) if any(way.compiled for way in ways) else "",
        least_s=10 + in_turn_s,
        most_s=60 + 2 * in_turn_s,
    )


def check_step(bench: Bench, check: Check) -> Step:
    """Return the step of a check that needs a card.

    Args:
        bench: The device and the images.
        check: One of `CHECKS`.
    """
    name, how = f"`{check.__name__}`", (check.__doc__ or "").partition("\n")[0]

    def run() -> Generator[Row]:
        check(whole(bench.fixture), bench.device)
        yield Row(name, "held", how)

    # Long, because graphs are compiled twice, for full batches and for the last.
    return Step(name, run, how, no_cuda(bench), least_s=20, most_s=150, check=True)


def missing() -> str:
    """Return what is not installed of all that a sweep needs; empty if nothing is wanting."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = [line.partition(">")[0] for line in project["dependencies"]]
    wanting = [name for name in needed if find_spec(name) is None]
    return f"no {', '.join(wanting)} here" if wanting else ""


def sweep(bench: Bench) -> Generator[Row]:
    """Run a small sweep as a user does, and tell what it took beside training."""
    from lenet_exp.cli.overhead import small_sweep

    chosen = {name: getattr(bench.data, name) for name in ("dataset", "folder", "validation")}
    chosen["limit"] = bench.data.limit or min(20_000, bench.images.count - bench.data.validation)
    workers = plan(measure(int(bench.device.type != "cpu"))).workers
    overrides = [f"data.{name}={value}" for name, value in chosen.items()]
    quick = PROJECT / "experiments" / "quick.toml"
    harness = small_sweep(quick, overrides, workers=workers, device=str(bench.device))
    how = f"`experiments/quick.toml` on {chosen['limit']:,} images, {3 * workers} trials, {workers} at once"
    first = "from the command to the first training step"
    yield Row("`first_step_s`", f"{harness.first_step_s:.2f} s", f"{first}; {how}")
    told = "a trial outside its training passes and evaluations, driver and records included, median"
    yield Row("`harness_s`", f"{harness.trial_s:.2f} s", f"{told}; {how}")
