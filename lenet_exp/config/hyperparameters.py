"""`Configuration`: all hyper-parameters of a training; the ways to write them, and the presets.

A per-layer hyper-parameter has a value for each layer. In a file or a flag it is written as one value for all
layers, as a list with a value for each, or under a key for one layer (``kernel_size_2``). Optuna, MLflow and
the leaderboard use only the keys for one layer.
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

#: The per-layer hyper-parameters, each with the maximum number of its layers.
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
    """A pydantic model that is validated when it is created, cannot be changed, and rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced. Cached properties are not copied but computed anew.

        Args:
            update: New values by field name, which are not validated; None to replace nothing.
            deep: True to copy the values of the fields too, recursively.
        """
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied


class Configuration(Frozen):
    """All settings that determine a training, apart from its seed and its data.

    A per-layer value has one entry for each layer of the network and none for others, so configurations that
    differ only in unused layers are equal.
    """

    pooling: Pooling = Field(description="pooling after each convolution: mean or maximum of 2x2 windows")
    kernel_size: tuple[KernelSize, ...] = Field(
        min_length=1, max_length=MAX_CONV_LAYERS, description="side of each square kernel, in pixels"
    )
    padding: tuple[Padding, ...] = Field(
        description="zeros around the input of each convolution layer, in pixels"
    )
    channels: tuple[Channels, ...] = Field(description="output channels of each convolution layer")
    activation: Activation = Field(description="activation function after each convolution and hidden layer")
    fc_width: tuple[FcWidth, ...] = Field(
        max_length=MAX_FC_LAYERS - 1, description="outputs of each hidden fully connected layer"
    )
    init: Init = Field(description="distribution of the initial weights; biases have torch's default")
    optimizer: OptimizerName = Field(description="adam, or sgd")
    lr: float = Field(gt=0, le=100, description="learning rate")
    momentum: float = Field(ge=0, lt=1, description="momentum of sgd; ignored by adam")
    weight_decay: float = Field(ge=0, le=1, description="L2 penalty")
    loss: Loss = Field(description="cross_entropy, or mse against one-hot labels")
    batch_size: int = Field(ge=1, le=65_536, description="images per step")
    epochs: int = Field(ge=1, le=10_000, description="passes over the training images")
    precision: Precision = Field(
        description="float32, bfloat16, or auto: bfloat16 if the device supports it in hardware"
    )

    @model_validator(mode="after")
    def _one_value_per_layer(self) -> Configuration:
        for name in ("padding", "channels"):
            n_entries = len(getattr(self, name))
            if n_entries != self.conv_layers:
                rule = f"must have {self.conv_layers} entries, one per convolution layer"
                raise ValueError(f"{name} {rule}, found {n_entries}")
        return self

    @property
    def conv_layers(self) -> int:
        """Number of convolution layers, 1 to 3."""
        return len(self.kernel_size)

    @property
    def fc_layers(self) -> int:
        """Number of fully connected layers, including the output layer, 1 to 3."""
        return len(self.fc_width) + 1

    def hyperparameters(self) -> dict[str, Any]:
        """Return the value of every key of `HYPERPARAMETERS`, in that order.

        Keys that are not used, such as the third kernel size of a two-layer network, are None.
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
        """Return the configuration as it is recorded: its hyper-parameters by key, and ``epochs``."""
        return self.hyperparameters() | {"epochs": self.epochs}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Configuration:
        """Return the configuration whose `to_dict` is ``written``.

        Raises:
            pydantic.ValidationError: If ``written`` is not a valid configuration.
        """
        fields: dict[str, Any] = {"momentum": 0.0} | {
            name: value for name in _PLAIN if (value := written.get(name)) is not None
        }
        for name, keys in _LAYER_KEYS.items():
            fields[name] = tuple(value for key in keys if (value := written.get(key)) is not None)
        return cls.model_validate(fields)

    @cached_property
    def id(self) -> str:
        """The hash of all values, which names the configuration: ``c`` and 11 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
        # The letter keeps spreadsheets and pandas from reading the hash as a number.
        return f"c{digest[:11]}"


def _keys() -> tuple[str, ...]:
    """Return the keys of all hyper-parameters, with a key for each layer, in the leaderboard's order."""
    order = "pooling conv_layers kernel_size padding channels activation fc_layers fc_width init optimizer lr"
    keys: list[str] = []
    for name in f"{order} momentum weight_decay loss batch_size precision".split():
        keys += [f"{name}_{i + 1}" for i in range(PER_LAYER[name])] if name in PER_LAYER else [name]
    return tuple(keys)


#: The fields of a configuration that have one value for the whole network.
_PLAIN = tuple(name for name in Configuration.model_fields if name not in PER_LAYER)
#: The keys of all hyper-parameters: the leaderboard's columns, and the parameters in MLflow and Optuna.
HYPERPARAMETERS = _keys()


def split_key(key: str) -> tuple[str, int | None]:
    """Return the hyper-parameter that a key names, and the layer: a number from 1, or None for all layers.

    Example:
        >>> split_key("kernel_size_2"), split_key("lr")
        (('kernel_size', 2), ('lr', None))
    """
    base, _, layer = key.rpartition("_")
    if base in PER_LAYER and layer.isdigit() and 1 <= int(layer) <= PER_LAYER[base]:
        return base, int(layer)
    return key, None


#: Each key with its hyper-parameter and its layer; and the keys of each per-layer hyper-parameter.
_KEYS = tuple((key, *split_key(key)) for key in HYPERPARAMETERS)
_LAYER_KEYS = {
    name: [key for key, hyperparameter, layer in _KEYS if hyperparameter == name and layer]
    for name in PER_LAYER
}


class PartialConfiguration(Frozen):
    """The hyper-parameters that one table of an experiment file sets; None for each that it leaves out."""

    preset: Preset | None = Field(None, description="configuration to start from: lenet or classic")
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


#: Full values of today's LeNet, the default baseline, and of the first LeNet in *Dive into Deep Learning*
#: (``classic``). They include values for a third convolution layer, for experiments that add one.
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
    """Return a copy of ``base`` with ``values`` written over it.

    Args:
        base: Full values, such as a preset: every hyper-parameter by name, the per-layer ones as lists.
        values: New values by name or by the key of one layer. For a per-layer name, a single value replaces
            the values of all layers, and a list replaces those of the first layers.

    Example:
        >>> overlay(PRESETS["lenet"], {"channels": [12], "kernel_size_2": 3})["channels"]
        [12, 16, 32]
    """
    full = {name: list(value) if isinstance(value, list) else value for name, value in base.items()}
    # Keys for one layer are more specific than names, so they are written last.
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
    """Return the configuration with ``values``, which have an entry for every hyper-parameter.

    Values of unused layers are dropped, and a padding of ``same`` becomes its width in pixels.

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
