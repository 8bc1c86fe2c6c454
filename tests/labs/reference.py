"""The keys of an experiment file as their models have them: what a reference has to say of each."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lenet_exp.config.ablation import DEFAULT_SEEDS, MAX_SEEDS, NamedTable
from lenet_exp.config.experiment import Confirm, Data, Experiment, Run, Search, Training, Watch
from lenet_exp.config.hyperparameters import PER_LAYER, PRESETS, PartialConfiguration, split_key
from lenet_exp.config.space import Range

_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false"}


class Key(NamedTuple):
    """A row of the reference.

    Attributes:
        name: The key.
        values: Its type and bounds, or what can be chosen, for people.
        default: What it is if the file does not say; a dash where there is none.
    """

    name: str
    values: str
    default: str


def _models() -> dict[str, type[BaseModel]]:
    """Return the model of each section whose keys all have a default of their own."""
    return {
        "[data]": Data,
        "[training]": Training,
        "[search]": Search,
        "[confirm]": Confirm,
        "[watch]": Watch,
        "a range": Range,
    }


def sections() -> dict[str, list[Key]]:
    """Return the keys of every section, by what the reference calls it."""
    found = {name: list(_keys(model)) for name, model in _models().items()}
    found["the top"] = list(_keys(Experiment, {"name", "question"}))
    found["[ablate]"] = [Key("seeds", f"integer, 1 to {MAX_SEEDS:,}", str(DEFAULT_SEEDS))]
    own = {*NamedTable.model_fields, *Run.model_fields} - set(PartialConfiguration.model_fields)
    found["[[run]]"] = list(_keys(Run, own))
    found["hyper-parameters"] = list(_hyperparameters())
    return found


def _keys(model: type[BaseModel], wanted: set[str] | None = None) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        if wanted is None or name in wanted:
            yield Key(name, _values(field.annotation, field.metadata), _default(field.default))


def _hyperparameters() -> Iterator[Key]:
    """Yield what a table that describes a network may have; its default is today's LeNet."""
    for name, field in PartialConfiguration.model_fields.items():
        if split_key(name)[1] is None:
            values = _values(field.annotation, field.metadata)
            layers = f"; up to {PER_LAYER[name]} layers" if name in PER_LAYER else ""
            yield Key(name, f"{values}{layers}", _default(PRESETS["lenet"].get(name)))


def _alternatives(annotation: Any) -> list[Any]:
    """Return what a union is of, lists and None left out; the annotation itself if it is no union."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for each in get_args(annotation) for part in _alternatives(each)]
        return [part for part in parts if part is not type(None) and get_origin(part) is not list]
    return [annotation]


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _values(annotation: Any, metadata: list[Any]) -> str:
    """Return the type with the least and the largest value, and the words that can be chosen."""
    choices: list[str] = []
    kinds: list[str] = []
    constraints = list(metadata)
    for part in _alternatives(annotation):
        if get_origin(part) is Literal:
            choices += get_args(part)
            continue
        kinds.append(_TYPES[get_args(part)[0] if hasattr(part, "__metadata__") else part])
        for each in getattr(part, "__metadata__", ()):
            constraints += each.metadata if isinstance(each, FieldInfo) else [each]
    kind = "number" if "number" in kinds else "".join(kinds)
    said = ", ".join(filter(None, (kind, _limits(constraints))))
    return ", or ".join(filter(None, (said, ", ".join(choices))))


def _limits(constraints: list[Any]) -> str:
    """Return what annotated-types' constraints say together."""
    names = ("ge", "gt", "le", "lt", "max_length")
    limits = {name: getattr(each, name) for each in constraints for name in names if hasattr(each, name)}
    if "max_length" in limits:
        return f"at most {limits['max_length']:,} characters"
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']:,} to {limits['le']:,}"
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(
        f"{word} {'2⁶³' if limits[name] == 2**63 else format(limits[name], ',')}"
        for name, word in words.items()
        if name in limits
    )
