"""The space that a study searches: its dimensions, how a trial draws from them, and the grid of all points.

A *dimension* is the set of values that a hyper-parameter may have, for all layers or one (``channels_2``). A
per-layer hyper-parameter is drawn separately for each layer of the trial's network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from pydantic import Field, ValidationError, model_validator

from lenet_exp.base.errors import ConfigError, shorten
from lenet_exp.config.hyperparameters import (
    HYPERPARAMETERS,
    PER_LAYER,
    Configuration,
    Frozen,
    PartialConfiguration,
    configuration,
    overlay,
    split_key,
)
from lenet_exp.config.refusals import nearest, refusal

Scalar = str | int | float

#: The keys that a space may have: every hyper-parameter, and the per-layer ones also for a single layer.
SPACE_KEYS = tuple(dict.fromkeys([*(split_key(key)[0] for key in HYPERPARAMETERS), *HYPERPARAMETERS]))

#: Maximum number of points of a grid: at ten seconds a trial, that many take more than a day.
MAX_GRID = 10_000

#: Maximum number of steps in a range; a finer step must be a mistake.
MAX_STEPS = 1_000_000_000


class Range(Frozen):
    """A dimension of all numbers between two bounds, including the bounds."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    log: bool = Field(False, description="true to draw evenly on a logarithmic scale")
    step: int | float | None = Field(None, gt=0, description="distance between neighbouring values")

    @model_validator(mode="after")
    def _bounds(self) -> Range:
        if self.low > self.high:
            raise ValueError("low must not be above high")
        if self.log and self.low <= 0:
            raise ValueError("low must be above 0 in a logarithmic range")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        if self.step is not None and (self.high - self.low) / self.step > MAX_STEPS:
            raise ValueError(f"a range has at most {MAX_STEPS:,} steps")
        return self

    @property
    def whole(self) -> bool:
        """True if the values are integers, which they are if both bounds are."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def values(self) -> list[Scalar] | None:
        """Return all values in ascending order, or None if there are more than `MAX_GRID`."""
        if not self.whole and self.step is None:
            return None
        step = self.step or 1
        steps = (self.high - self.low) / step
        return [self.low + i * step for i in range(int(steps + 1e-9) + 1)] if steps < MAX_GRID else None


@dataclass(frozen=True)
class Fixed:
    """A dimension with a single value, so that nothing is drawn."""

    value: Any


@dataclass(frozen=True)
class Choice:
    """A dimension of listed values without an order."""

    options: tuple[Scalar, ...]


Dimension = Fixed | Choice | Range


class Suggester(Protocol):
    """The methods of `optuna.Trial` that draw values, declared here so that Optuna need not be imported."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Draw one of ``choices``.

        Args:
            name: Key of the hyper-parameter.
            choices: Values to draw from.
        """

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw an integer.

        Args:
            name: Key of the hyper-parameter.
            low: Smallest value.
            high: Largest value.
            step: Distance between neighbouring values.
            log: True to draw evenly on a logarithmic scale.
        """

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Draw a number.

        Args:
            name: Key of the hyper-parameter.
            low: Smallest value.
            high: Largest value.
            step: Distance between neighbouring values; None for any number between the bounds.
            log: True to draw evenly on a logarithmic scale.
        """


def parse_dimension(key: str, written: Any) -> Dimension:
    """Validate one key of ``[space]``, and return its dimension.

    Args:
        key: Key of the dimension, one of `SPACE_KEYS`.
        written: Value of the key: a list gives a `Choice`, a table a `Range`, any other value is `Fixed`.

    Raises:
        ConfigError: If the key is unknown, or the hyper-parameter cannot have one of the values.

    Example:
        >>> parse_dimension("kernel_size", [3, 5])
        Choice(options=(3, 5))
    """
    if key not in SPACE_KEYS:
        if key == "epochs":
            raise ConfigError(
                "space.epochs: all trials train for the same number of epochs; set training.epochs"
            )
        raise ConfigError(f"space.{key}: unknown hyper-parameter {key!r}; {nearest(key, SPACE_KEYS)}")
    if isinstance(written, dict):
        return _parse_range(key, written)
    if isinstance(written, list):
        if not written:
            raise ConfigError(f"space.{key}: a choice needs at least one value, found none")
        for value in written:
            _check_value(key, value)
        if len(set(written)) < len(written):
            raise ConfigError(f"space.{key}: a choice names each value once, found {shorten(written)}")
        return Choice(tuple(written))
    _check_value(key, written)
    return Fixed(written)


def _check_value(key: str, value: Any) -> None:
    """Raise if the hyper-parameter cannot have ``value``."""
    if isinstance(value, list | dict | None):
        raise ConfigError(f"space.{key}: each choice must be one value, found {shorten(value)}")
    try:
        PartialConfiguration.model_validate({key: value})
    except ValidationError as error:
        rule = refusal(error, {key: value}).rule
        raise ConfigError(f"space.{key}: {rule}, found {shorten(value)}") from None


def _parse_range(key: str, table: Mapping[str, Any]) -> Range:
    try:
        dimension = Range.model_validate(dict(table))
    except ValidationError as error:
        refused = refusal(error, table)
        if refused.kind in ("extra_forbidden", "missing"):
            wrong = "unknown key" if refused.kind == "extra_forbidden" else "missing key"
            rule = f"{wrong} {refused.key!r}; a range has low, high and, if wanted, log or step"
        else:
            rule = refused.rule
        bound = f".{refused.key}" if refused.key in Range.model_fields else ""
        raise ConfigError(f"space.{key}{bound}: {rule}, found {shorten(dict(table))}") from None
    for end in (dimension.low, dimension.high):
        _check_value(key, end)
    if isinstance(dimension.step, float) and dimension.whole:
        raise ConfigError(f"space.{key}.step: must be a whole number, found {dimension.step}")
    return dimension


@dataclass(frozen=True)
class Space:
    """The dimensions that a study searches, and the values of all other hyper-parameters.

    Attributes:
        dimensions: Dimensions by key of `SPACE_KEYS`; a key for one layer overrides the key for all layers.
        base: Full values, as for `lenet_exp.config.hyperparameters.overlay`, of all hyper-parameters.
            They are used where there is no dimension.
    """

    dimensions: Mapping[str, Dimension]
    base: Mapping[str, Any]

    def dimension(self, key: str) -> Dimension:
        """Return the dimension of ``key``, else that of all layers, else the value in ``base`` as `Fixed`."""
        name, layer = split_key(key)
        for candidate in (key, name):
            if candidate in self.dimensions:
                return self.dimensions[candidate]
        return Fixed(self.base[name] if layer is None else self.base[name][layer - 1])

    def suggest(self, trial: Suggester) -> Configuration:
        """Return a configuration drawn by ``trial``; only the layers of the drawn network draw values."""
        drawn: dict[str, Any] = {}
        for key in self._keys(drawn):
            drawn[key] = _draw(trial, key, self.dimension(key))
        return self.configuration(drawn)

    def configuration(self, values: Mapping[str, Any]) -> Configuration:
        """Return the configuration with ``values`` by key; other keys have their fixed or base values."""
        fixed = {k: d.value for k, d in self.dimensions.items() if isinstance(d, Fixed)}
        return configuration(overlay(self.base, fixed | dict(values)))

    def _keys(self, drawn: Mapping[str, Any]) -> Iterator[str]:
        """Yield the keys in use, in the order of drawing; the caller adds each drawn value to ``drawn``."""
        yield "conv_layers"
        yield "fc_layers"
        used = dict.fromkeys(PER_LAYER, drawn["conv_layers"]) | {"fc_width": drawn["fc_layers"] - 1}
        for key in HYPERPARAMETERS:
            name, layer = split_key(key)
            if key in ("conv_layers", "fc_layers") or (layer is not None and layer > used[name]):
                continue
            yield key

    def grid(self) -> list[dict[str, Scalar]]:
        """Return the points of the grid, each as values by key: one point for each distinct configuration.

        Raises:
            ConfigError: If a range of floats has no step, or a range or the grid is longer than `MAX_GRID`.
        """
        points: list[dict[str, Scalar]] = []
        for keys, options in self._grids():
            points += [dict(zip(keys, values, strict=True)) for values in itertools.product(*options)]
        distinct = {self.configuration(point).id: point for point in points}
        drawn = {key for key in HYPERPARAMETERS if not isinstance(self.dimension(key), Fixed)}
        return [{k: v for k, v in point.items() if k in drawn} for point in distinct.values()]

    def check_grid(self) -> None:
        """Raise the errors that `grid` raises, without creating the points."""
        for _ in self._grids():
            pass

    def _grids(self) -> Iterator[tuple[list[str], list[list[Any]]]]:
        """Yield the keys in use and the values of each, for each combination of numbers of layers."""
        n_points = 0
        for conv_layers, fc_layers in itertools.product(
            self._options("conv_layers"), self._options("fc_layers")
        ):
            first = {"conv_layers": conv_layers, "fc_layers": fc_layers}
            keys = list(self._keys(first))
            options = [[first[key]] if key in first else self._options(key) for key in keys]
            n_points += prod(map(len, options))
            if n_points > MAX_GRID:
                raise ConfigError(
                    f"search.sampler: a grid has at most {MAX_GRID:,} points, found more; narrow the space,"
                    " or choose another sampler"
                )
            yield keys, options

    def _options(self, key: str) -> list[Any]:
        dimension = self.dimension(key)
        if isinstance(dimension, Fixed):
            return [dimension.value]
        if isinstance(dimension, Choice):
            return list(dimension.options)
        values = dimension.values()
        if values is None:
            raise ConfigError(
                f"space.{key}: a grid needs a list, or a range with a step and at most {MAX_GRID:,} values"
            )
        return values

    def describe(self) -> dict[str, Any]:
        """Return the dimensions as JSON values, to be stored and compared with those of a later call."""
        described: dict[str, Any] = {}
        for key, dimension in sorted(self.dimensions.items()):
            if isinstance(dimension, Range):
                described[key] = dimension.model_dump(exclude_none=True)
            else:
                described[key] = dimension.value if isinstance(dimension, Fixed) else list(dimension.options)
        return described


def _draw(trial: Suggester, key: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Fixed):
        return dimension.value
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(key, dimension.options)
    if dimension.whole:
        step = int(dimension.step or 1)
        return trial.suggest_int(key, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(key, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
