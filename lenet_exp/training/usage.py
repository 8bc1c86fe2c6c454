"""What a training takes from its machine, as ``[watch]`` asks for it: processor, memory and GPU.

The metrics begin with ``system/``, so that MLflow shows them on a tab of their own.
"""

from __future__ import annotations

import contextlib
import sys
import time

import torch


class Usage:
    """Measures what this process has used since the last look."""

    def __init__(self, threads: int, device: torch.device) -> None:
        """Start the first measurement.

        Args:
            threads: Number of CPU threads that this process computes with.
            device: Device that it trains on.
        """
        self._threads = threads
        self._device = device
        self._since = time.perf_counter(), time.process_time()

    def measure(self) -> dict[str, float]:
        """Return what was used since the last call by the metric's name, and start the next measurement."""
        import resource  # Windows has none, and is to be told so by the command line

        now = time.perf_counter(), time.process_time()
        (wall_s, cpu_s), self._since = (new - old for new, old in zip(now, self._since, strict=True)), now
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else 1024 * peak
        return {
            # MLflow measures in percent and megabytes, and its own names show what they are.
            "system/cpu_utilization_percentage": 100 * cpu_s / max(wall_s, 1e-9) / self._threads,
            "system/memory_peak_megabytes": peak_bytes / 1e6,
            **(self._gpu() if self._device.type == "cuda" else {}),
        }

    def _gpu(self) -> dict[str, float]:
        """Return what all programs together use of the GPU, as MLflow measures it."""
        index = self._device.index or 0
        free, total = torch.cuda.mem_get_info(self._device)
        used = {f"system/gpu_{index}_memory_usage_megabytes": (total - free) / 1e6}
        # PyTorch asks NVIDIA's library by way of a package that is not among ours, and that has exceptions of
        # its own: a part of a GPU has no utilisation.
        with contextlib.suppress(Exception):
            used[f"system/gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(self._device))
        return used
