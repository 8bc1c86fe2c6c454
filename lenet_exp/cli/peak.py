"""The peak rate of a machine's arithmetic, and the number of operations of training on one image."""

from __future__ import annotations

import time

import torch

from lenet_exp.config.architecture import layers
from lenet_exp.config.hyperparameters import Configuration

#: Sides of the square matrices to multiply; which is fastest depends on a processor's caches.
SIDES = (512, 1024, 2048)

#: Products that are computed before the clock starts.
_WARM_UP = 2


def training_flops(configuration: Configuration, image_size: int = 28) -> int:
    """Return the number of floating-point operations of training on one image.

    A multiplication with an addition (MAC) is two operations. The backward pass costs twice the forward
    pass: once for the gradient of the weights, and once for that of the input, which the first layer does
    not need. Together: ``2 * (3 * macs - macs of the first layer)``. As usual, all else is left out.

    Args:
        configuration: Configuration of the network.
        image_size: Side of the images, in pixels.

    Example:
        >>> from lenet_exp.config.hyperparameters import PRESETS, configuration
        >>> training_flops(configuration(PRESETS["lenet"]))
        2263920
    """
    macs = [layer.macs for layer in layers(configuration, image_size) if layer.macs]
    return 2 * (3 * sum(macs) - macs[0])


def matrix_peak(*, for_s: float, threads: int, device: torch.device | None = None) -> float:
    """Measure ``torch.mm`` in float32, and return its rate in GFLOP/s.

    Each size in `SIDES` is measured for an equal time; the highest of their mean rates is returned.

    Args:
        for_s: Seconds that all sizes take together.
        threads: Number of CPU threads that torch may use for it.
        device: Device to compute on; None for the CPU.
    """
    device = device or torch.device("cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return max(_rate(side, for_s / len(SIDES), device) for side in SIDES)
    finally:
        torch.set_num_threads(before)


def _rate(side: int, for_s: float, device: torch.device) -> float:
    """Multiply two square matrices for ``for_s`` seconds, and return the rate in GFLOP/s."""
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    result = torch.empty(side, side, device=device)
    for _ in range(_WARM_UP):
        torch.mm(left, right, out=result)
    _synchronise(device)
    products, began = 0, time.perf_counter()
    while True:
        torch.mm(left, right, out=result)
        products += 1
        if time.perf_counter() - began >= for_s:
            _synchronise(device)
            return products * 2 * side**3 / (time.perf_counter() - began) / 1e9


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
