"""Check and measure a machine with a card, in less than six minutes: ``python tests/gpu.py``.

It needs PyTorch, NumPy, pydantic and safetensors, and no network. It runs the tests marked ``cuda``, then
measures whole attempts and their memory, our loop against the usual loop, and a small sweep where all that a
sweep needs is installed. Each row of the table is printed as it arises, and the
whole table at the end. Without a card it measures the CPU, on few images, and skips what needs a card.

The exit code is 0 if everything held, and 1 if a check failed, a measurement broke down, or there was a card
but no time for one of its checks. What could not be measured here is no failure.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

# Nothing is imported here but what is always there: each process of an attempt imports this file as well.
if TYPE_CHECKING:
    from tests.labs.gpu_bench import Bench
    from tests.labs.gpu_report import Step

PROJECT = Path(__file__).resolve().parent.parent


def main(
    arguments: Sequence[str] | None = None, steps: Callable[[Bench], Sequence[Step]] | None = None
) -> int:
    """Check and measure this machine, and return the exit code.

    Args:
        arguments: The command line's words; None for those that this process was given.
        steps: From what is measured to the steps; None for all that there are.
    """
    began = time.monotonic()
    if str(PROJECT) not in sys.path:
        sys.path.insert(0, str(PROJECT))
    given = _read(arguments)
    with tempfile.TemporaryDirectory(prefix="lenet-exp-gpu-") as folder, _environment(Path(folder)):
        from lenet_exp.base.errors import LenetExpError
        from tests.labs import gpu_bench, gpu_report, gpu_steps

        report = gpu_report.Report("", {}, given.output, began=began)
        report.say("torch is loaded")
        try:
            bench = gpu_bench.prepare(given.data, Path(folder), given.seconds, given.rounds, report.say)
        except LenetExpError as error:
            raise SystemExit(f"error: {error}") from None
        report.title, report.metadata = (
            f"Measured on {gpu_bench.device_name(bench.device)}",
            gpu_bench.metadata(bench),
        )
        report.say("; ".join(f"{name} {value}" for name, value in report.metadata.items()))
        try:
            held = gpu_report.run_steps((steps or gpu_steps.steps)(bench), report, began + given.budget)
        finally:
            # Also where Ctrl-C ends it.
            print(f"\n{report.markdown()}", flush=True)  # noqa: T201
        report.say("all held" if held else "not all held")
    return 0 if held else 1


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; argparse ends the process if they cannot be understood."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add(
        "--data", type=Path, metavar="FOLDER", help="train on its train-*-ubyte files (default: random bytes)"
    )
    add("--output", type=Path, metavar="FILE", help="also write the table there, after each row")
    add(
        "--budget",
        type=float,
        default=330,
        metavar="S",
        help="seconds in all; the rest is left out (default: 330)",
    )
    add("--seconds", type=float, metavar="S", help="of each measurement of speed (default: 3, on a CPU 0.5)")
    add("--rounds", type=int, default=3, metavar="N", help="repetitions of those measurements (default: 3)")
    return parser.parse_args(arguments)


@contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Have this process and those it starts find our modules, and keep what they cache in ``folder``."""
    before = os.environ.copy()
    paths = [str(PROJECT), *filter(None, [before.get("PYTHONPATH")])]
    caches = {"LENET_EXP_DATA": "data", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    os.environ.update({name: str(folder / place) for name, place in caches.items()})
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
