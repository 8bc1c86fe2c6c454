"""What a training is: `Configuration`, the hyper-parameters it is written in, and the baselines.

A hyper-parameter of a layer has one value per layer. Where people write it (a file, a flag) it is one
value for all layers, a list with one value per layer, or a key per layer (``kernel_size_2``); in
Optuna, MLflow and the leaderboard it is always the key per layer.
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

#: Hyper-parameters that every convolution layer, or every hidden fully connected layer, has its own of.
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
    """A part of a configuration: checked once, never changed, no key unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced, in which what follows from fields is computed anew.

        Args:
            update: New values by field, not checked.
            deep: Whether the fields' values are copied too.
        """
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Configuration(Frozen):
    """All that fixes a training, apart from its seed and its data.

    The sequences have one entry per layer that exists, so two configurations that do the same are equal.
    """

    pooling: Pooling = Field(description="after each convolution layer: the mean or the maximum of 2x2")
    kernel_size: tuple[KernelSize, ...] = Field(
        min_length=1, max_length=MAX_CONV_LAYERS, description="side of each layer's square kernel, in pixels"
    )
    padding: tuple[Padding, ...] = Field(description="zeros around each layer's input, in pixels")
    channels: tuple[Channels, ...] = Field(description="output channels of each convolution layer")
    activation: Activation = Field(description="after each convolution and each hidden layer")
    fc_width: tuple[FcWidth, ...] = Field(
        max_length=MAX_FC_LAYERS - 1, description="outputs of each hidden fully connected layer"
    )
    init: Init = Field(description="how weights begin; biases always begin as torch's default")
    optimizer: OptimizerName = Field(description="adam, or sgd")
    lr: float = Field(gt=0, le=100, description="learning rate")
    momentum: float = Field(ge=0, lt=1, description="of sgd; not used by adam")
    weight_decay: float = Field(ge=0, le=1, description="L2 penalty")
    loss: Loss = Field(description="cross_entropy, or mse against one-hot labels")
    batch_size: int = Field(ge=1, le=65_536, description="images a step")
    epochs: int = Field(ge=1, le=10_000, description="passes over the training images")
    precision: Precision = Field(
        description="of the arithmetic in training; auto is what the device does natively"
    )

    @model_validator(mode="after")
    def _one_value_per_layer(self) -> Configuration:
        for name in ("padding", "channels"):
            if len(getattr(self, name)) != self.conv_layers:
                raise ValueError(f"{name} must have {self.conv_layers} entries, one per convolution layer")
        return self

    @property
    def conv_layers(self) -> int:
        """How many convolution layers there are, 1 to 3."""
        return len(self.kernel_size)

    @property
    def fc_layers(self) -> int:
        """How many fully connected layers there are, that of the classes included, 1 to 3."""
        return len(self.fc_width) + 1

    def hyperparameters(self) -> dict[str, Any]:
        """Return every hyper-parameter by its key, always the same keys in the same order.

        What is not used (the third kernel of a two-layer network) is None.
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
        """Return the form in which a configuration is written down: its hyper-parameters, and ``epochs``."""
        return self.hyperparameters() | {"epochs": self.epochs}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Configuration:
        """Return the configuration that `to_dict` wrote down.

        Raises:
            pydantic.ValidationError: If it is none.
        """
        fields: dict[str, Any] = {"momentum": 0.0} | {
            name: value for name in _PLAIN if (value := written.get(name)) is not None
        }
        for name, keys in _LAYER_KEYS.items():
            fields[name] = tuple(value for key in keys if (value := written.get(key)) is not None)
        return cls.model_validate(fields)

    @cached_property
    def id(self) -> str:
        """The configuration's name: a hash of what it does, ``c`` and 11 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
        # The letter keeps spreadsheets and pandas from reading a number.
        return f"c{digest[:11]}"


def _keys() -> tuple[str, ...]:
    """Return the hyper-parameters in the order of the columns."""
    order = "pooling conv_layers kernel_size padding channels activation fc_layers fc_width init optimizer lr"
    keys: list[str] = []
    for name in f"{order} momentum weight_decay loss batch_size precision".split():
        keys += [f"{name}_{i + 1}" for i in range(PER_LAYER[name])] if name in PER_LAYER else [name]
    return tuple(keys)


#: The fields that have one value, whatever the number of layers.
_PLAIN = tuple(name for name in Configuration.model_fields if name not in PER_LAYER)
#: The keys of a configuration's hyper-parameters: columns, MLflow parameters, Optuna parameters.
HYPERPARAMETERS = _keys()


def split_key(key: str) -> tuple[str, int | None]:
    """Return a key's hyper-parameter and its layer, counted from 1; None if it has no layer.

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
_LAYER_KEYS = {name: [key for key, own, layer in _KEYS if own == name and layer] for name in PER_LAYER}


class PartialConfiguration(Frozen):
    """A configuration as a file writes it: what is left out is as in the baseline."""

    preset: Preset | None = Field(None, description="the named configuration to start from: lenet or classic")
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
        """Return what the table sets, by name, without the preset."""
        return {k: v for k, v in self.model_dump(exclude_none=True).items() if k != "preset"}


#: The network and training of the seed, and the book's first LeNet. The third convolution layer
#: is what an experiment with three layers gets unless it says otherwise.
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
    """Return the full values ``base`` with ``values`` laid over them.

    Args:
        base: A preset, or what an earlier call gave: every name, with a list for each layer's own.
        values: Names or keys per layer; one value for a per-layer name goes to all of its layers.

    Example:
        >>> overlay(PRESETS["lenet"], {"channels": [12], "kernel_size_2": 3})["channels"]
        [12, 16, 32]
    """
    full = {name: list(value) if isinstance(value, list) else value for name, value in base.items()}
    # Keys per layer are the more exact ones, so they go last.
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
    """Return the configuration that the full ``values`` mean: unused layers dropped, padding in pixels.

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
