"""`Configuration`: all hyper-parameters of a training; the ways to write them, and the presets.

A per-layer hyper-parameter has a value for each layer. A file or a flag writes one value for all layers, a
list with a value for each, or a key for one layer (``kernel_size_2``). Optuna, MLflow and the leaderboard
have only keys for one layer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Pooling = Literal["avg", "max"]
Activation = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "elu", "leaky_relu", "softplus"]
Init = Literal["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "default"]
OptimizerName = Literal["adam", "sgd"]
Loss = Literal["cross_entropy", "mse"]
Precision = Literal["auto", "float32", "bfloat16"]
Preset = Literal["lenet", "classic"]

MAX_CONV_LAYERS = 3
MAX_FC_LAYERS = 3
CLASSES = 10

#: The per-layer hyper-parameters, each with the largest number of layers that may have it.
PER_LAYER: dict[str, int] = {
    "kernel_size": MAX_CONV_LAYERS,
    "padding": MAX_CONV_LAYERS,
    "channels": MAX_CONV_LAYERS,
    "fc_width": MAX_FC_LAYERS - 1,
}

KernelSize = Annotated[int, Field(ge=1, le=28)]
Channels = Annotated[int, Field(ge=1, le=512)]
Padding = Annotated[int, Field(ge=0, le=14)]
FcWidth = Annotated[int, Field(ge=1, le=4096)]


class Frozen(BaseModel):
    """A model that is checked once, never changes, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced; its cached properties are computed anew.

        Args:
            update: New values by field, which are not checked; None to replace none.
            deep: True to copy the values of the fields too.
        """
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Configuration(Frozen):
    """All that determines a training, apart from its seed and its data.

    Per-layer values have one entry for each layer that exists, so equal trainings have equal configurations.
    """

    pooling: Pooling = Field(description="mean or maximum of each 2x2 window, after each convolution")
    kernel_size: tuple[KernelSize, ...] = Field(
        min_length=1, max_length=MAX_CONV_LAYERS, description="side of each layer's square kernel, in pixels"
    )
    padding: tuple[Padding, ...] = Field(description="zeros around each layer's input, in pixels")
    channels: tuple[Channels, ...] = Field(description="output channels of each convolution layer")
    activation: Activation = Field(description="function after each convolution and each hidden layer")
    fc_width: tuple[FcWidth, ...] = Field(
        max_length=MAX_FC_LAYERS - 1, description="outputs of each hidden fully connected layer"
    )
    init: Init = Field(description="distribution of the first weights; biases always have torch's default")
    optimizer: OptimizerName = Field(description="adam, or sgd")
    lr: float = Field(gt=0, le=100, description="learning rate")
    momentum: float = Field(ge=0, lt=1, description="momentum of sgd; not used by adam")
    weight_decay: float = Field(ge=0, le=1, description="L2 penalty")
    loss: Loss = Field(description="cross_entropy, or mse against one-hot labels")
    batch_size: int = Field(ge=1, le=65_536, description="images per step")
    epochs: int = Field(ge=1, le=10_000, description="passes over the training images")
    precision: Precision = Field(
        description="arithmetic of the training; auto is what the device does natively"
    )

    @model_validator(mode="after")
    def _one_value_per_layer(self) -> Configuration:
        for name in ("padding", "channels"):
            if len(getattr(self, name)) != self.conv_layers:
                raise ValueError(f"{name} must have {self.conv_layers} entries, one per convolution layer")
        return self

    @property
    def conv_layers(self) -> int:
        """Number of convolution layers, 1 to 3."""
        return len(self.kernel_size)

    @property
    def fc_layers(self) -> int:
        """Number of fully connected layers, the output layer included, 1 to 3."""
        return len(self.fc_width) + 1

    def hyperparameters(self) -> dict[str, Any]:
        """Return every hyper-parameter by key, always the same keys in the same order.

        Unused ones (the third kernel size of a two-layer network) are None.
        """
        return dict(self._flat)

    @cached_property
    def _flat(self) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, name, layer in _KEYS:
            value = getattr(self, name)
            flat[key] = value if layer is None else value[layer - 1] if layer <= len(value) else None
        if self.optimizer == "adam":
            flat["momentum"] = None
        return flat

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as records keep it: its hyper-parameters by key, and ``epochs``."""
        return self.hyperparameters() | {"epochs": self.epochs}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Configuration:
        """Return the configuration whose `to_dict` is ``written``.

        Raises:
            pydantic.ValidationError: If it is not a valid configuration.
        """
        fields: dict[str, Any] = {"momentum": 0.0} | {
            name: value for name in _PLAIN if (value := written.get(name)) is not None
        }
        for name, keys in _LAYER_KEYS.items():
            fields[name] = tuple(value for key in keys if (value := written.get(key)) is not None)
        return cls.model_validate(fields)

    @cached_property
    def id(self) -> str:
        """The configuration's name: a hash of all its values, ``c`` and 11 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
        # The letter keeps spreadsheets and pandas from reading it as a number.
        return f"c{digest[:11]}"


def _keys() -> tuple[str, ...]:
    """Return the keys of all hyper-parameters, in the order of the leaderboard's columns."""
    order = "pooling conv_layers kernel_size padding channels activation fc_layers fc_width init optimizer lr"
    keys: list[str] = []
    for name in f"{order} momentum weight_decay loss batch_size precision".split():
        keys += [f"{name}_{i + 1}" for i in range(PER_LAYER[name])] if name in PER_LAYER else [name]
    return tuple(keys)


#: The fields of a configuration that have one value for the whole network.
_PLAIN = tuple(name for name in Configuration.model_fields if name not in PER_LAYER)
#: The keys of a configuration's hyper-parameters: columns, MLflow parameters, Optuna parameters.
HYPERPARAMETERS = _keys()


def split_key(key: str) -> tuple[str, int | None]:
    """Return the hyper-parameter of a key, and its layer, counted from 1, or None if the key names no layer.

    Example:
        >>> split_key("kernel_size_2"), split_key("lr")
        (('kernel_size', 2), ('lr', None))
    """
    base, _, layer = key.rpartition("_")
    if base in PER_LAYER and layer.isdigit() and 1 <= int(layer) <= PER_LAYER[base]:
        return base, int(layer)
    return key, None


#: Each key with its hyper-parameter and layer, and the keys of each hyper-parameter that has layers.
_KEYS = tuple((key, *split_key(key)) for key in HYPERPARAMETERS)
_LAYER_KEYS = {
    name: [key for key, hyperparameter, layer in _KEYS if hyperparameter == name and layer]
    for name in PER_LAYER
}


class PartialConfiguration(Frozen):
    """A configuration as a file writes it; what it leaves out is as in the baseline."""

    preset: Preset | None = Field(None, description="named configuration to start from: lenet or classic")
    pooling: Pooling | None = None
    conv_layers: int | None = Field(None, ge=1, le=MAX_CONV_LAYERS)
    kernel_size: KernelSize | list[KernelSize] | None = None
    kernel_size_1: KernelSize | None = None
    kernel_size_2: KernelSize | None = None
    kernel_size_3: KernelSize | None = None
    padding: Padding | Literal["same"] | list[Padding | Literal["same"]] | None = None
    padding_1: Padding | Literal["same"] | None = None
    padding_2: Padding | Literal["same"] | None = None
    padding_3: Padding | Literal["same"] | None = None
    channels: Channels | list[Channels] | None = None
    channels_1: Channels | None = None
    channels_2: Channels | None = None
    channels_3: Channels | None = None
    activation: Activation | None = None
    fc_layers: int | None = Field(None, ge=1, le=MAX_FC_LAYERS)
    fc_width: FcWidth | list[FcWidth] | None = None
    fc_width_1: FcWidth | None = None
    fc_width_2: FcWidth | None = None
    init: Init | None = None
    optimizer: OptimizerName | None = None
    lr: float | None = Field(None, gt=0, le=100)
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0, le=1)
    loss: Loss | None = None
    batch_size: int | None = Field(None, ge=1, le=65_536)
    epochs: int | None = Field(None, ge=1, le=10_000)
    precision: Precision | None = None

    @model_validator(mode="after")
    def _lists_fit_the_layers(self) -> PartialConfiguration:
        for name, most in PER_LAYER.items():
            value = getattr(self, name)
            if isinstance(value, list) and not 1 <= len(value) <= most:
                raise ValueError(f"{name} must have 1 to {most} entries, one per layer, found {len(value)}")
        return self

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters that the table sets, and the epochs, by name."""
        return {k: v for k, v in self.model_dump(exclude_none=True).items() if k != "preset"}


#: Full values of today's LeNet, the default baseline, and of the first LeNet in *Dive into Deep Learning*.
#: The values of a third convolution layer are for experiments that add one.
PRESETS: dict[str, dict[str, Any]] = {
    "lenet": {
        "pooling": "max",
        "conv_layers": 2,
        "kernel_size": [5, 5, 3],
        "padding": [2, 0, 1],
        "channels": [6, 16, 32],
        "activation": "relu",
        "fc_layers": 3,
        "fc_width": [120, 84],
        "init": "xavier_uniform",
        "optimizer": "adam",
        "lr": 0.009,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "loss": "cross_entropy",
        "batch_size": 256,
        "epochs": 10,
        "precision": "auto",
    }
}
PRESETS["classic"] = PRESETS["lenet"] | {
    "pooling": "avg",
    "activation": "sigmoid",
    "optimizer": "sgd",
    "lr": 0.9,
}


def overlay(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``base`` in which ``values`` replace what they name.

    Args:
        base: Full values, such as a preset: every hyper-parameter by name, the per-layer ones as lists.
        values: New values by name or by the key of one layer. A single value for a per-layer name replaces
            those of all layers, a list those of the first layers.

    Example:
        >>> overlay(PRESETS["lenet"], {"channels": [12], "kernel_size_2": 3})["channels"]
        [12, 16, 32]
    """
    full = {name: list(value) if isinstance(value, list) else value for name, value in base.items()}
    # Keys of one layer are more specific than names, so they come last.
    for key, value in sorted(values.items(), key=lambda item: split_key(item[0])[1] is not None):
        name, layer = split_key(key)
        if layer is not None:
            full[name][layer - 1] = value
        elif name in PER_LAYER:
            given = list(value) if isinstance(value, list | tuple) else [value] * PER_LAYER[name]
            full[name][: len(given)] = given
        else:
            full[name] = value
    return full


def configuration(values: Mapping[str, Any]) -> Configuration:
    """Return the configuration with the full ``values``, without unused layers, and with padding in pixels.

    Raises:
        pydantic.ValidationError: If a value is outside its bounds.

    Example:
        >>> configuration(PRESETS["lenet"]).channels
        (6, 16)
    """
    layers, hidden = values["conv_layers"], values["fc_layers"] - 1
    kernel_size = tuple(values["kernel_size"][:layers])
    padding = tuple(
        k // 2 if p == "same" else p for k, p in zip(kernel_size, values["padding"][:layers], strict=True)
    )
    shared = {k: v for k, v in values.items() if k not in PER_LAYER and k not in ("conv_layers", "fc_layers")}
    return Configuration(
        kernel_size=kernel_size,
        padding=padding,
        channels=tuple(values["channels"][:layers]),
        fc_width=tuple(values["fc_width"][:hidden]),
        **shared,
    )
