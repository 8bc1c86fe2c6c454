"""Describes a configuration in a few words: all of it, or only what differs from the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lenet_exp.config.hyperparameters import HYPERPARAMETERS, PER_LAYER, split_key

#: Short forms of names; the names of other numbers are written out.
_SHORT = {
    "kernel_size": "k",
    "padding": "p",
    "channels": "c",
    "fc_width": "fc",
    "weight_decay": "wd",
    "batch_size": "batch",
}
#: Texts that say nothing without the name of their hyper-parameter, as several may have them.
_AMBIGUOUS = ("auto", "default")
#: What is described, in order; the numbers of layers are left out, as the values for each layer show them.
_NAMES = tuple(
    name
    for name in dict.fromkeys([*(split_key(key)[0] for key in HYPERPARAMETERS), "epochs"])
    if name not in ("conv_layers", "fc_layers")
)


def description(values: Mapping[str, Any]) -> str:
    """Return a configuration in a few words; what is 0, not used or not in ``values`` is left out.

    Args:
        values: Values by key of `HYPERPARAMETERS`, such as `Configuration.hyperparameters` or a row of the
            leaderboard; may include ``epochs``. Other keys are ignored.

    Example:
        >>> description({"pooling": "max", "kernel_size_1": 5, "kernel_size_2": 3, "lr": 0.01})
        'max k5-3 lr 0.01'
    """
    given = {name: _value(values, name) for name in _NAMES if _keys(name) & values.keys()}
    return " ".join(_text(name, value) for name, value in given.items() if value or value == ())


def differences(values: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Return in a few words what differs from the baseline; empty if nothing does.

    Args:
        values: Values by key, as for `description`.
        baseline: The baseline's values. What one of the two lacks is not compared.

    Example:
        >>> differences({"pooling": "avg", "lr": 0.02}, {"pooling": "max", "lr": 0.02, "loss": "mse"})
        'avg'
    """
    words = []
    for name in _NAMES:
        value, usual = _value(values, name), _value(baseline, name)
        # The momentum of adam is None and that of plain sgd 0; the optimizer's name says so already.
        is_told = value != usual and value is not None and (value or usual)
        if is_told and _keys(name) & values.keys() & baseline.keys():
            text = _text(name, value)
            # Three digits may hide the difference.
            words.append(text if text != _text(name, usual) else f"{_SHORT.get(name, name)} {value!r}")
    return " ".join(words)


def _keys(name: str) -> set[str]:
    return {f"{name}_{layer + 1}" for layer in range(PER_LAYER[name])} if name in PER_LAYER else {name}


def _value(values: Mapping[str, Any], name: str) -> Any:
    """Return a value, or those of all layers that have one as a tuple; None if it is not used or missing.

    A padding that keeps the size of the maps is ``same``, as in an experiment file: it follows from the
    kernels.
    """
    if name not in PER_LAYER:
        return values.get(name)
    layers = tuple(value for key in sorted(_keys(name)) if (value := values.get(key)) is not None)
    if name == "padding" and layers == tuple(k // 2 for k in _value(values, "kernel_size")):
        return "same"
    return layers


def _text(name: str, value: Any) -> str:
    short = _SHORT.get(name, name)
    if isinstance(value, tuple):
        return short + "-".join(map(str, value)) if value else f"{short} none"
    if isinstance(value, str) and value not in _AMBIGUOUS:
        return value
    return f"{short} {value:.3g}" if isinstance(value, float) else f"{short} {value}"
