"""Parses ``[ablate]`` of an experiment file: the factors of an ablation, and the alternatives for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from lenet_exp.base.errors import ConfigError, shorten
from lenet_exp.config.hyperparameters import PartialConfiguration
from lenet_exp.config.refusals import nearest, refusal

#: Number of seeds for the baseline and each alternative, unless the file sets ``ablate.seeds``.
DEFAULT_SEEDS = 5
MAX_SEEDS = 1_000
MAX_ALTERNATIVES = 1_000

#: Factors whose alternatives may be plain values: hyper-parameters, for all layers or one, and epochs.
FACTORS = tuple(name for name in PartialConfiguration.model_fields if name != "preset")


class NamedTable(PartialConfiguration):
    """A TOML table that sets hyper-parameters and may have a name for display."""

    name: str | None = Field(None, max_length=100, description="name in tables and plots")

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters that the table sets, and the epochs, by name."""
        return {key: value for key, value in super().values().items() if key != "name"}


@dataclass(frozen=True)
class Alternative:
    """One alternative of an ablation: the baseline with one factor changed.

    Attributes:
        factor: Name of the factor that varies, such as ``pooling``.
        value: Value of the factor as it is displayed, such as ``avg``, ``3-8`` or the name of a table.
        table: Hyper-parameters to change in the baseline, or in the preset that the table names.
    """

    factor: str
    value: str
    table: NamedTable


@dataclass(frozen=True)
class Factors:
    """The content of ``[ablate]``, validated.

    Attributes:
        alternatives: Alternatives of all factors, in the file's order.
        seeds: Number of seeds that the baseline and each alternative are trained on.
    """

    alternatives: tuple[Alternative, ...]
    seeds: int


def parse_factors(written: Mapping[str, Any]) -> Factors:
    """Validate ``[ablate]`` of an experiment file, and return its alternatives and its number of seeds.

    Args:
        written: Content of ``[ablate]``: ``seeds``, and a list of alternatives for each factor. An
            alternative is a value of the hyper-parameter (or ``epochs``) that the factor is named after, or a
            table that sets several. A factor whose alternatives are all tables may have any name.

    Raises:
        ConfigError: If a factor is unknown, or an alternative is invalid.

    Example:
        >>> [(a.factor, a.value) for a in parse_factors({"channels": [[3, 8], 12]}).alternatives]
        [('channels', '3-8'), ('channels', '12')]
    """
    seeds = written.get("seeds", DEFAULT_SEEDS)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= MAX_SEEDS:
        raise ConfigError(
            f"ablate.seeds: must be a whole number from 1 to {MAX_SEEDS:,}, found {shorten(seeds)}"
        )
    alternatives: list[Alternative] = []
    for factor, listed in written.items():
        if factor != "seeds":
            alternatives += _alternatives(factor, listed)
    if not alternatives:
        raise ConfigError('ablate: needs a factor with its alternatives, as in pooling = ["avg"]; found none')
    if len(alternatives) > MAX_ALTERNATIVES:
        raise ConfigError(
            f"ablate: at most {MAX_ALTERNATIVES:,} alternatives are allowed, found {len(alternatives):,}"
        )
    return Factors(tuple(alternatives), seeds)


def _alternatives(factor: str, listed: Any) -> list[Alternative]:
    if not isinstance(listed, list) or not listed:
        raise ConfigError(
            f"ablate.{factor}: must be a list of alternatives, as in [3, 7]; found {shorten(listed)}"
        )
    if factor not in FACTORS and not all(isinstance(value, dict) for value in listed):
        raise ConfigError(
            f"ablate.{factor}: unknown hyper-parameter {factor!r}; {nearest(factor, FACTORS)}"
            " (a factor of any other name needs tables as alternatives)"
        )
    return [_alternative(factor, value) for value in listed]


def _alternative(factor: str, value: Any) -> Alternative:
    written = value if isinstance(value, dict) else {factor: value}
    try:
        table = NamedTable.model_validate(written)
    except ValidationError as error:
        refused = refusal(error, written)
        if refused.kind == "extra_forbidden":
            advice = nearest(refused.key, NamedTable.model_fields)
            raise ConfigError(f"ablate.{factor}: unknown key {refused.key!r}; {advice}") from None
        place = f"{factor}: {refused.key}" if isinstance(value, dict) and refused.key else factor
        # The rules of our own validators already say what was found.
        finding = "" if refused.kind == "value_error" else f", found {shorten(value)}"
        raise ConfigError(f"ablate.{place}: {refused.rule}{finding}") from None
    if not table.values() and table.preset is None:
        raise ConfigError(f"ablate.{factor}: each table must set at least one key, found {shorten(value)}")
    return Alternative(factor, table.name or _readable(value), table)


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_readable(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
