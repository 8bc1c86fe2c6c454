"""The space that a study searches: its dimensions, the draw of a trial, and the grid.

A *dimension* belongs to a hyper-parameter, or to that of one layer (``channels_2``). A per-layer
hyper-parameter is drawn separately for each layer that the trial's network has.
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

#: The keys that a space may have: every hyper-parameter, also for one layer.
SPACE_KEYS = tuple(dict.fromkeys([*(split_key(key)[0] for key in HYPERPARAMETERS), *HYPERPARAMETERS]))

#: Most points of a grid: at ten seconds a trial, that many take more than a day.
MAX_GRID = 10_000

#: Most steps of a range; a finer step is a mistake.
MAX_STEPS = 1_000_000_000


class Range(Frozen):
    """A dimension of the numbers between two bounds, bounds included."""

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
        """True if the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def values(self) -> list[Scalar] | None:
        """Return every value, ascending, or None if there are more than `MAX_GRID`."""
        if not self.whole and self.step is None:
            return None
        step = self.step or 1
        steps = (self.high - self.low) / step
        return [self.low + i * step for i in range(int(steps + 1e-9) + 1)] if steps < MAX_GRID else None


@dataclass(frozen=True)
class Fixed:
    """A dimension with a single value, which is not drawn."""

    value: Any


@dataclass(frozen=True)
class Choice:
    """A dimension of listed values, whose order means nothing."""

    options: tuple[Scalar, ...]


Dimension = Fixed | Choice | Range


class Suggester(Protocol):
    """The part of an Optuna trial that draws values, under Optuna's names."""

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
    """Check and return a dimension of a file's ``[space]``.

    Args:
        key: Key of the dimension, one of `SPACE_KEYS`.
        written: Value of the key in the file: a list is a choice, a table a range, any other value is fixed.

    Raises:
        ConfigError: If the key is unknown, or the hyper-parameter cannot have one of the values.

    Example:
        >>> parse_dimension("kernel_size", [3, 5])
        Choice(options=(3, 5))
    """
    if key not in SPACE_KEYS:
        if key == "epochs":
            raise ConfigError("space.epochs: all trials train the same epochs; set [training] epochs")
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
        dimensions: Dimensions by key, one of `SPACE_KEYS`; that of one layer overrides that of all layers.
        base: Full values (see `lenet_exp.config.hyperparameters.overlay`), which hold without a dimension.
    """

    dimensions: Mapping[str, Dimension]
    base: Mapping[str, Any]

    def dimension(self, key: str) -> Dimension:
        """Return the dimension of ``key``, else that of its hyper-parameter, else the base's value, fixed."""
        name, layer = split_key(key)
        for candidate in (key, name):
            if candidate in self.dimensions:
                return self.dimensions[candidate]
        return Fixed(self.base[name] if layer is None else self.base[name][layer - 1])

    def suggest(self, trial: Suggester) -> Configuration:
        """Return the configuration that ``trial`` draws; layers that it does not have draw nothing."""
        drawn: dict[str, Any] = {}
        for key in self._keys(drawn):
            drawn[key] = _draw(trial, key, self.dimension(key))
        return self.configuration(drawn)

    def configuration(self, values: Mapping[str, Any]) -> Configuration:
        """Return the configuration with the drawn ``values``, by key, the fixed ones and the base's."""
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
        """Return the points of the space, by key: one for each distinct configuration.

        Raises:
            ConfigError: If a dimension, or the whole grid, has more than `MAX_GRID` values.
        """
        points: list[dict[str, Scalar]] = []
        for keys, options in self._grids():
            points += [dict(zip(keys, values, strict=True)) for values in itertools.product(*options)]
        distinct = {self.configuration(point).id: point for point in points}
        drawn = {key for key in HYPERPARAMETERS if not isinstance(self.dimension(key), Fixed)}
        return [{k: v for k, v in point.items() if k in drawn} for point in distinct.values()]

    def check_grid(self) -> None:
        """Raise what `grid` raises, without making the points."""
        for _ in self._grids():
            pass

    def _grids(self) -> Iterator[tuple[list[str], list[list[Any]]]]:
        """Yield, for each number of layers, the keys in use and the values of each."""
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
                    " or take another sampler"
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
        """Return the dimensions as plain values, which can be stored and compared."""
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
