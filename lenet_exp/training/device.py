"""Resolves names of devices and precisions, ``auto`` included, to what this machine has."""

from __future__ import annotations

import re

import torch

from lenet_exp.base.errors import DeviceError
from lenet_exp.config.hyperparameters import Precision


def resolve_device(name: str) -> torch.device:
    """Return the device called ``name``, after a small computation has shown that it works.

    Args:
        name: ``auto`` (an accelerator if there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        DeviceError: If there is no such device, or it fails to compute.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?|mps", name):
        raise DeviceError(f"device {name!r} cannot be used: name auto, cpu, cuda, cuda:1 or mps")
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return torch.device("cpu")
        name = accelerator.type
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).cpu()
    except (RuntimeError, AssertionError) as error:
        # Torch's lines can have more than a thousand characters; what is wrong is in their first sentence.
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise DeviceError(
            f"device {name!r} cannot be used: {reason.rstrip('.')}; try --device auto"
        ) from None
    return device


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision to train in, with ``auto`` resolved for the device.

    Args:
        precision: Precision of the configuration; ``auto`` becomes ``bfloat16`` where the device computes in
            it natively, else ``float32``.
        device: Device to train on.
    """
    if precision != "auto":
        return precision
    if device.type == "cpu":
        # Without these instructions a CPU emulates bfloat16, which is slower than float32.
        native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    elif device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = False
    return "bfloat16" if native else "float32"
