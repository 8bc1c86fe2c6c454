"""The alternatives of an ablation: what a file's ``[ablate]`` writes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from lenet_exp.base.errors import ConfigError, shorten
from lenet_exp.config.hyperparameters import PartialConfiguration
from lenet_exp.config.refusals import nearest, refusal

#: Seeds of each alternative and of the baseline, unless the file says otherwise.
DEFAULT_SEEDS = 5
MAX_SEEDS = 1_000
MAX_ALTERNATIVES = 1_000

#: What a factor can be without a table: every hyper-parameter, those of a layer too, and the epochs.
FACTORS = tuple(name for name in PartialConfiguration.model_fields if name != "preset")


class NamedTable(PartialConfiguration):
    """A configuration as a file writes it, with a name for people."""

    name: str | None = Field(None, max_length=100, description="what tables and pictures call it")

    def values(self) -> dict[str, Any]:
        """Return what the table sets, by name, without the preset and the name."""
        return {key: value for key, value in super().values().items() if key != "name"}


@dataclass(frozen=True)
class Alternative:
    """One thing that is changed in the baseline, everything else as it was.

    Attributes:
        factor: What varies, such as ``pooling``.
        value: What it is here, for people: ``avg``, ``3-8``, or the name of a table.
        table: What is laid over the baseline.
    """

    factor: str
    value: str
    table: NamedTable


@dataclass(frozen=True)
class Factors:
    """A file's ``[ablate]``: its alternatives in order, and the seeds that each is trained on."""

    alternatives: tuple[Alternative, ...]
    seeds: int


def parse_factors(written: Mapping[str, Any]) -> Factors:
    """Return what ``[ablate]`` means.

    Args:
        written: ``seeds``, and for each factor a list of alternatives: values that a hyper-parameter (or
            ``epochs``) can have, or tables that set several. A factor of tables alone can have any name.

    Raises:
        ConfigError: If a factor is unknown, or an alternative cannot be.

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
        raise ConfigError(f"ablate: at most {MAX_ALTERNATIVES:,} alternatives, found {len(alternatives):,}")
    return Factors(tuple(alternatives), seeds)


def _alternatives(factor: str, listed: Any) -> list[Alternative]:
    if not isinstance(listed, list) or not listed:
        raise ConfigError(
            f"ablate.{factor}: must be a list of alternatives, as in [3, 7]; found {shorten(listed)}"
        )
    if factor not in FACTORS and not all(isinstance(value, dict) for value in listed):
        raise ConfigError(
            f"ablate.{factor}: unknown hyper-parameter {factor!r}; {nearest(factor, FACTORS)}"
            " (only tables can have another name)"
        )
    return [_alternative(factor, value) for value in listed]


def _alternative(factor: str, value: Any) -> Alternative:
    written = value if isinstance(value, dict) else {factor: value}
    try:
        table = NamedTable.model_validate(written)
    except ValidationError as error:
        refused = refusal(error, written)
        where = f"{factor}: {refused.key}" if isinstance(value, dict) and refused.key else factor
        raise ConfigError(f"ablate.{where}: {refused.rule}, found {shorten(value)}") from None
    if not table.values() and table.preset is None:
        raise ConfigError(f"ablate.{factor}: a table must set something, found {shorten(value)}")
    return Alternative(factor, table.name or _shown(value), table)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
