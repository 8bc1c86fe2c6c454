"""`Experiment`: a question, and all that is needed to answer it, read from a TOML file."""

from __future__ import annotations

import difflib
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from lenet_exp.base.errors import ConfigError, shorten
from lenet_exp.base.records import TrainOn
from lenet_exp.config.ablation import MAX_SEEDS, Alternative, Factors, NamedTable, parse_factors
from lenet_exp.config.hyperparameters import (
    PRESETS,
    Configuration,
    ConfigurationTable,
    Frozen,
    Loss,
    Precision,
    configuration,
    overlay,
)
from lenet_exp.config.space import Dimension, Space, parse_dimension

#: An experiment file larger than this is not one.
MAX_FILE_BYTES = 1_000_000

#: Nor is one in which tables and lists are deeper in each other.
MAX_DEPTH = 10

_NAME = re.compile(r"^\w[\w .-]{0,99}$")

SamplerName = Literal["tpe", "random", "grid", "qmc", "cmaes"]
PrunerName = Literal["hyperband", "halving", "median", "none"]


class Data(Frozen):
    """Which images, and how the training images are divided."""

    dataset: str = Field("fashion-mnist", description="fashion-mnist, mnist, kmnist, or a name of yours")
    folder: str | None = Field(None, description="where IDX files lie, looked in before any download")
    validation: int = Field(10_000, ge=1, le=10_000_000, description="training images kept for validation")
    limit: int | None = Field(None, ge=1, le=10_000_000, description="train on this many images only")
    resize: int = Field(28, ge=4, le=256, description="side of the images, in pixels")
    seed: int = Field(0, ge=0, lt=2**63, description="of the division into training and validation")

    @field_validator("dataset")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _checked_name(name)


class Training(Frozen):
    """What every configuration of the experiment shares."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(256, ge=1, le=65_536, description="images a step")
    precision: Precision = Field("auto", description="auto, float32 or bfloat16")
    loss: Loss = Field("cross_entropy", description="cross_entropy or mse")
    compile: bool = Field(False, description="whether an accelerator runs a step as one compiled graph")

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters among them."""
        return self.model_dump(exclude={"compile"})


class Search(Frozen):
    """How the space is searched."""

    trials: int = Field(
        60, ge=0, le=1_000_000, description="finished trials in all, those of earlier calls too"
    )
    sampler: SamplerName = Field("tpe", description="tpe, random, grid, qmc or cmaes")
    pruner: PrunerName = Field("hyperband", description="hyperband, halving, median or none")
    seed: int = Field(0, ge=0, lt=2**63, description="root of all random streams of the study")
    startup_trials: int = Field(10, ge=0, le=100_000, description="random trials before the sampler learns")
    min_epochs: int = Field(1, ge=1, le=10_000, description="epochs before a trial may be pruned")
    reduction_factor: int = Field(3, ge=2, le=100, description="one trial in this many goes on")


class Confirm(Frozen):
    """How the best configurations are trained anew against the baseline."""

    top: int = Field(3, ge=1, le=100, description="configurations to confirm")
    seeds: int = Field(5, ge=1, le=1_000, description="fresh seeds for each, the same for all")
    train_on: TrainOn = Field("train", description="train, or train+validation")
    level: float = Field(0.05, gt=0, lt=0.5, description="chance of a verdict where nothing differs")


class Watch(Frozen):
    """What is measured after each epoch besides the training itself."""

    test_split: bool = Field(False, description="test_loss and test_accuracy; of a fixed list only")
    diagnostics: bool = Field(False, description="dead or saturated units and gradient norms, by layer")


class Run(NamedTable):
    """One configuration of a fixed list."""

    seeds: int = Field(1, ge=1, le=MAX_SEEDS, description="trainings of it, each from another seed")

    def values(self) -> dict[str, Any]:
        """Return what the run sets in its configuration, by name, without the preset."""
        return {key: value for key, value in super().values().items() if key != "seeds"}


class Experiment(Frozen):
    """A question and how it is answered; see ``experiments/`` for examples."""

    name: str = Field(description="of the experiment, the study and the folder")
    question: str = Field("", max_length=10_000, description="what the experiment is to answer")
    data: Data = Data()
    baseline: ConfigurationTable = ConfigurationTable()
    training: Training = Training()
    space: dict[str, Any] = Field(default_factory=dict, description="hyper-parameter to value, list or range")
    search: Search = Search()
    run: list[Run] = Field(
        default_factory=list, max_length=1_000, description="a fixed list of configurations"
    )
    ablate: dict[str, Any] = Field(default_factory=dict, description="factor to its alternatives, and seeds")
    watch: Watch = Watch()
    confirm: Confirm = Confirm()

    _dimensions: dict[str, Dimension] = PrivateAttr(default_factory=dict)
    _factors: Factors | None = PrivateAttr(None)

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _checked_name(name)

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        kinds = {"a [space] to search": self.space, "a list of [[run]]": self.run, "an [ablate]": self.ablate}
        given = [kind for kind, written in kinds.items() if written]
        if len(given) > 1:
            raise ValueError(f"an experiment has {' or '.join(given)}, not both")
        if (self.run or self.ablate) and "search" in self.model_fields_set:
            raise ValueError(f"{given[0]} is not searched; leave [search] out")
        if self.watch.test_split and "confirm" in self.model_fields_set:
            raise ConfigError(
                "watch.test_split: [confirm] chooses before the test split is read; leave one of them out"
            )
        if self.watch.test_split and (self.space or self.ablate):
            raise ConfigError(
                f"watch.test_split: {given[0]} chooses by what it sees, so it may not see the test split;"
                " only a list of [[run]], which chooses nothing, may"
            )
        self._dimensions = {key: parse_dimension(key, written) for key, written in self.space.items()}
        search, epochs = self.search, self.base["epochs"]
        if self.space and search.pruner == "hyperband" and search.min_epochs > epochs:
            raise ConfigError(
                f"search.min_epochs: must be at most training.epochs ({epochs}), found {search.min_epochs}"
            )
        if self.space and search.sampler == "grid":
            self.search_space.check_grid()
        if self.ablate:
            self._factors = parse_factors(self.ablate)
            self._alternatives_differ()
        return self

    def _alternatives_differ(self) -> None:
        """Raise if an alternative is the baseline, or another one: it would be compared with itself."""
        known = {self.baseline_configuration.identity: "the baseline"}
        for alternative, changed in self.alternatives():
            said = f"{alternative.factor} {alternative.value}"
            if changed.identity in known:
                raise ConfigError(
                    f"ablate.{alternative.factor}: {alternative.value!r} is the same configuration as"
                    f" {known[changed.identity]}; leave it out"
                )
            known[changed.identity] = said

    @property
    def base(self) -> dict[str, Any]:
        """Full values of the baseline, which are those of whatever is not said otherwise."""
        preset = PRESETS[self.baseline.preset or "lenet"]
        return overlay(preset, self.training.values() | self.baseline.values())

    @property
    def baseline_configuration(self) -> Configuration:
        """The configuration everything is compared with."""
        return configuration(self.base)

    @property
    def search_space(self) -> Space:
        """The space, with the baseline's values for what it leaves out."""
        return Space(self._dimensions, self.base)

    def runs(self) -> list[tuple[str, Configuration]]:
        """Return the fixed list: a label and a configuration each."""
        return [
            (run.name or f"run {number}", self._changed(run)) for number, run in enumerate(self.run, start=1)
        ]

    def alternatives(self) -> list[tuple[Alternative, Configuration]]:
        """Return what the ablation tries beside the baseline, in the file's order; none without one."""
        listed = self._factors.alternatives if self._factors else ()
        return [(alternative, self._changed(alternative.table)) for alternative in listed]

    def _changed(self, table: NamedTable) -> Configuration:
        """Return the baseline with a table laid over it, or over the preset that the table names."""
        preset = PRESETS[table.preset or self.baseline.preset or "lenet"]
        own = {"precision": self.base["precision"]} if table.preset else self.baseline.values()
        return configuration(overlay(preset, self.training.values() | own | table.values()))

    @property
    def seeds(self) -> int:
        """How many seeds the baseline is trained on: as many as what is compared with it."""
        return self._factors.seeds if self._factors else max((run.seeds for run in self.run), default=1)

    def resolved(self, native: Precision) -> Experiment:
        """Return the experiment with ``precision = "auto"`` replaced by what the device does natively.

        What a training computes in is part of what it is, so it is fixed before anything is named by it.
        """
        if self.base["precision"] != "auto":
            return self
        baseline = self.baseline.model_copy(update={"precision": native})
        resolved = self.model_copy(update={"baseline": baseline})
        resolved._dimensions, resolved._factors = self._dimensions, self._factors
        return resolved

    def on(self, dataset: str, folder: str | None) -> Experiment:
        """Return the experiment on another data set, under a name that no experiment file can have.

        Args:
            dataset: As in ``[data]``.
            folder: Where its files lie, if it is the user's own.
        """
        data = self.data.model_copy(update={"dataset": _checked_name(dataset), "folder": folder})
        moved = self.model_copy(update={"name": f"{self.name}@{dataset}", "data": data})
        moved._dimensions = self._dimensions
        return moved

    @property
    def is_confirmed(self) -> bool:
        """Whether the main job ends with a confirmation: a list of runs has none unless it asks for it."""
        return bool(self.space) or "confirm" in self.model_fields_set

    @property
    def trials(self) -> int:
        """How many trials the study is to have finished in all; none without a space."""
        return self.search.trials if self.space else 0


def _checked_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not _NAME.match(name) or ".." in name or name != name.strip():
        raise ValueError(
            "must be 1 to 100 letters, digits, spaces, '.', '-' or '_', a letter or digit first"
            f", found {name[:60]!r}"
        )
    return name


def load(path: Path, overrides: Iterable[str] = (), flags: Mapping[str, Any] | None = None) -> Experiment:
    """Read, check and return the experiment in ``path``.

    Args:
        path: A TOML file.
        overrides: ``section.key=value`` each, stronger than the file; the value is TOML, else text.
        flags: By dotted key, stronger than everything; None is not set.

    Raises:
        ConfigError: With the key, what was found, the rule and, where known, the line.
    """
    text = _read(path)
    data = _parse(path, text)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set takes section.key=value, found {override!r}")
        _put(data, key.strip(), _toml_value(value.strip()), source="--set")
    for key, value in (flags or {}).items():
        if value is not None:
            _put(data, key, value, source=f"--{key.rpartition('.')[2]}")
    return parse(data, source=str(path), text=text)


def parse(data: Mapping[str, Any], source: str = "experiment", text: str = "") -> Experiment:
    """Return the experiment that the tables of ``data`` describe.

    Raises:
        ConfigError: As `load`.
    """
    if _depth(data) > MAX_DEPTH:
        raise ConfigError(f"{source}: not an experiment: nested too deeply")
    try:
        return Experiment.model_validate(data)
    except ConfigError as error:
        raise ConfigError(f"{_place(source, text, str(error).partition(':')[0])}{error}") from None
    except ValidationError as error:
        key, rule = _explain(error, data)
        raise ConfigError(f"{_place(source, text, key)}{rule}") from None


def _read(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; name an experiment file (.toml)")
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is no regular file; name an experiment file (.toml)")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: an experiment file has at most {MAX_FILE_BYTES:,} bytes, found more")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: must be UTF-8, found byte {error.object[error.start]:#x}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: not an experiment: nested too deeply") from None
    except ValueError as error:  # an integer with thousands of digits
        raise ConfigError(f"{path}: not an experiment: {error}") from None


def _depth(value: Any) -> int:
    """Return how deep tables and lists are in each other, of any depth."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, Mapping) else item for item in level]
        level = [part for parts in inner for part in parts if isinstance(part, Mapping | list)]
    return depth


def _toml_value(text: str) -> Any:
    try:
        read = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
    return read["value"] if len(read) == 1 else text


def _put(data: dict[str, Any], dotted: str, value: Any, source: str) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{source}: {dotted!r} leads through {section!r}, which is no section")
        data = inner
    data[key] = value


def _explain(error: ValidationError, data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the dotted key of the first thing wrong, and a sentence on it."""
    # A field that takes a number or a list reports both refusals; the deeper one, and the one that does
    # not complain of the type, tells more.
    refusals = [(_key(detail["loc"], data), detail) for detail in error.errors()]
    key, detail = min(
        refusals,
        key=lambda refusal: (-len(re.split(r"[.\[]", refusal[0])), refusal[1]["type"].endswith("_type")),
    )
    found = shorten(detail["input"])
    if detail["type"] == "extra_forbidden":
        *section, name = key.split(".")
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        where = f" in [{'.'.join(section)}]" if section else ""
        return key, f"unknown key {name!r}{where}; {hint}"
    if detail["type"] == "missing":
        return key, f"{key} is missing; an experiment needs it"
    if detail["type"] == "value_error":
        rule = detail["msg"].removeprefix("Value error, ")
        return key, f"{key}: {rule}" if key else rule
    rule = detail["msg"].replace("Input should be", "must be")
    return key, f"{key}: {rule}, found {found}"


def _key(location: Sequence[str | int], data: Any) -> str:
    """Return the dotted key of a pydantic location, its notes on types left out."""
    parts: list[str] = []
    for depth, part in enumerate(location):
        last = depth == len(location) - 1
        if isinstance(data, Mapping) and (part in data or (last and isinstance(part, str))):
            parts.append(str(part))
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            parts[-1:] = [f"{parts[-1]}[{part}]"] if parts else [f"[{part}]"]
            data = data[part]
    return ".".join(parts)


def _known_keys(section: Sequence[str | int]) -> list[str]:
    model: Any = Experiment
    for part in section:
        if isinstance(part, str) and part in model.model_fields:
            model = Run if part == "run" else model.model_fields[part].annotation
    return list(model.model_fields)


def _place(source: str, text: str, key: str) -> str:
    """Return ``file:line: ``, or ``file: `` where the line is not known."""
    section, _, name = re.sub(r"\[\d+\]", "", key).rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header and "=" not in line.partition("]")[0]:
            current = header[1]
            if current == key:
                return f"{source}:{number}: "
        elif current == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", line):
            return f"{source}:{number}: "
    return f"{source}: "
