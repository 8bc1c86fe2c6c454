"""`Experiment`: a question, and all that is needed to answer it; `loader` reads it from a TOML file."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from lenet_exp.base.errors import ConfigError
from lenet_exp.base.records import TrainOn
from lenet_exp.config.ablation import MAX_SEEDS, Alternative, Factors, NamedTable, parse_factors
from lenet_exp.config.hyperparameters import (
    PRESETS,
    Configuration,
    Frozen,
    Loss,
    PartialConfiguration,
    Precision,
    configuration,
    overlay,
)
from lenet_exp.config.space import Dimension, Space, parse_dimension

_NAME = re.compile(r"^\w[\w .-]{0,99}$")

SamplerName = Literal["tpe", "random", "grid", "qmc", "cmaes"]
Kernels = Literal["fast", "torch"]
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
    kernels: Kernels = Field(
        "fast", description="on a CPU: fast, this project's own, or torch, PyTorch's layers and autograd"
    )

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters among them."""
        return self.model_dump(exclude={"compile", "kernels"})


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
    baseline: PartialConfiguration = PartialConfiguration()
    training: Training = Training()
    space: dict[str, Any] = Field(default_factory=dict, description="hyper-parameter to value, list or range")
    search: Search = Search()
    run: list[Run] = Field(
        default_factory=list, max_length=1_000, description="a fixed list of configurations"
    )
    ablate: dict[str, Any] = Field(default_factory=dict, description="factor to its alternatives, and seeds")
    watch: Watch = Watch()
    confirm: Confirm = Confirm()
    _text: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """The file that the experiment was read from, without overrides; made up where there was none."""
        made = self.model_dump_json(exclude_unset=True)
        return self._text or f"# Made in Python, without a file.\n# {made}\n"

    def keep_text(self, text: str) -> None:
        """Keep the text of the file that the experiment was read from."""
        self._text = text

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
        search, epochs, space = self.search, self.base["epochs"], self.search_space
        if self.space and search.pruner == "hyperband" and search.min_epochs > epochs:
            raise ConfigError(
                f"search.min_epochs: must be at most training.epochs ({epochs}), found {search.min_epochs}"
            )
        if self.space and search.sampler == "grid":
            space.check_grid()
        self._alternatives_differ()
        return self

    def _alternatives_differ(self) -> None:
        """Raise if an alternative is the baseline, or another one: it would be compared with itself."""
        known = {self.baseline_configuration.id: "the baseline"}
        for alternative, changed in self.alternatives():
            said = f"{alternative.factor} {alternative.value}"
            if changed.id in known:
                raise ConfigError(
                    f"ablate.{alternative.factor}: {alternative.value!r} is the same configuration as"
                    f" {known[changed.id]}; leave it out"
                )
            known[changed.id] = said

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

    @cached_property
    def _dimensions(self) -> dict[str, Dimension]:
        return {key: parse_dimension(key, written) for key, written in self.space.items()}

    @cached_property
    def _factors(self) -> Factors | None:
        return parse_factors(self.ablate) if self.ablate else None

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

    def with_precision(self, native: Precision) -> Experiment:
        """Return the experiment with ``precision = "auto"`` replaced by what the device does natively.

        Precision is part of a configuration's hash, so it is known before any hash is taken.
        """
        if self.base["precision"] != "auto":
            return self
        return self.model_copy(update={"baseline": self.baseline.model_copy(update={"precision": native})})

    def with_dataset(self, dataset: str, folder: str | None) -> Experiment:
        """Return the experiment on another data set, under a name that no experiment file can have.

        Args:
            dataset: The data set's name, as in ``[data]``.
            folder: Where its files lie; None if they are not the user's own.
        """
        data = self.data.model_copy(update={"dataset": _checked_name(dataset), "folder": folder})
        return self.model_copy(update={"name": f"{self.name}@{dataset}", "data": data})

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
