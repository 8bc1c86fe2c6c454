"""What a machine can compute at best, and what training an image costs in the same unit."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from lenet_exp.config.architecture import layers
from lenet_exp.config.hyperparameters import Configuration

#: Sides of the square matrices; the smallest stay in the caches of a core, and no size is best everywhere.
SIDES = (512, 1024, 2048)

#: Products that are run before the clock starts.
_WARM_UP = 2


def training_flops(configuration: Configuration, image_size: int = 28) -> int:
    """Return the floating-point operations of training on one image.

    A multiplication with an addition (MAC) is two operations. The backward pass costs twice the forward
    pass, once for the gradient of the weights and once for that of the input, which the first layer
    does without: ``2 * (3 * macs - macs of the first layer)``. Activations, pooling and the optimiser are
    left out, as is usual.

    Example:
        >>> from lenet_exp.config.hyperparameters import PRESETS, configuration
        >>> training_flops(configuration(PRESETS["lenet"]))
        2263920
    """
    macs = [layer.macs for layer in layers(configuration, image_size) if layer.macs]
    return 2 * (3 * sum(macs) - macs[0])


def matrix_peaks(*, for_s: float, threads: int, device: torch.device | None = None) -> dict[str, float]:
    """Return the rates of float32 matrix products in GFLOP/s, by the library that computes them.

    Each is the best of the sizes `SIDES`, and the rate that it kept up, not that of its luckiest product.

    Args:
        for_s: Seconds in all.
        threads: Of the CPU, for as long as it takes.
        device: Where to; None for the CPU.
    """
    device = device or torch.device("cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rates: dict[str, float] = {}
    try:
        with torch.inference_mode():
            for side in SIDES:
                for name, product in _products(side, device).items():
                    each_s = for_s / len(SIDES) / (2 if device.type == "cpu" else 1)
                    rate = _rate(product, 2 * side**3, each_s, device)
                    rates[name] = max(rate, rates.get(name, 0.0))
    finally:
        torch.set_num_threads(before)
    return rates


def _products(side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return what multiplies two matrices, by name."""
    left, right = (torch.rand(side, side, device=device) for _ in range(2))
    result = torch.empty(side, side, device=device)
    if device.type != "cpu":
        return {f"torch.mm on {device.type}": lambda: torch.mm(left, right, out=result)}
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch has no type
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # likewise
    products: dict[str, Callable[[], object]] = {
        f"torch.mm ({'MKL' if has_mkl else 'BLAS'})": lambda: torch.mm(left, right, out=result)
    }
    if has_onednn:
        # In its own layout oneDNN computes a linear layer; torch.mm has another library.
        packed_left, packed_right = left.to_mkldnn(), right.to_mkldnn()
        products["oneDNN"] = lambda: F.linear(packed_left, packed_right)
    return products


def _rate(product: Callable[[], object], flops: int, for_s: float, device: torch.device) -> float:
    """Return the GFLOP/s of calling ``product``, each of ``flops``, for some seconds."""
    for _ in range(_WARM_UP):
        product()
    _synchronise(device)
    calls, began = 0, time.perf_counter()
    while True:
        product()
        calls += 1
        if time.perf_counter() - began >= for_s:
            _synchronise(device)
            return calls * flops / (time.perf_counter() - began) / 1e9


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
