import subprocess
import sys

import pytest

#: Takes and frees 40 MB again and again, and prints the page faults that it cost, once it has settled.
_STEPS = """
import resource, torch
from lenet_exp.execution.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> tuple[str, int]:
    command = [sys.executable, "-c", _STEPS.format(keep=keep)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return said[0], int(said[1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_that_is_freed_is_taken_again_without_page_faults() -> None:
    """With the C library's own settings every large buffer comes from the system anew."""
    told, kept = faults(keep=True)
    _, given_back = faults(keep=False)

    assert told == "True"
    assert kept < given_back / 10
