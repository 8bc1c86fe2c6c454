"""`Experiment`: a question and the settings that answer it; `loader` reads it from a TOML file."""

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
    """The data set, and the division of its training images."""

    dataset: str = Field("fashion-mnist", description="fashion-mnist, mnist, kmnist, or a name for your own")
    folder: str | None = Field(None, description="folder of the IDX files, tried before any download")
    validation: int = Field(
        10_000, ge=1, le=10_000_000, description="number of training images kept for validation"
    )
    limit: int | None = Field(
        None, ge=1, le=10_000_000, description="number of images to train on; by default all others"
    )
    resize: int = Field(28, ge=4, le=256, description="side of the resized images, in pixels")
    seed: int = Field(0, ge=0, lt=2**63, description="root of the random division of the images")

    @field_validator("dataset")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _checked_name(name)


class Training(Frozen):
    """Settings of every training, unless the baseline, a run, an alternative or the space has its own."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(256, ge=1, le=65_536, description="images per step")
    precision: Precision = Field(
        "auto", description="auto (what the device does natively), float32 or bfloat16"
    )
    loss: Loss = Field("cross_entropy", description="cross_entropy or mse")
    compile: bool = Field(False, description="true to run each step on an accelerator as one compiled graph")
    kernels: Kernels = Field(
        "fast", description="layers on a CPU: fast (this project's own) or torch (PyTorch's, with autograd)"
    )

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters among the settings, and the epochs, by name."""
        return self.model_dump(exclude={"compile", "kernels"})


class Search(Frozen):
    """The search of the space."""

    trials: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="finished trials to have at the end, those of earlier calls included",
    )
    sampler: SamplerName = Field("tpe", description="tpe, random, grid, qmc or cmaes")
    pruner: PrunerName = Field("hyperband", description="hyperband, halving, median or none")
    seed: int = Field(0, ge=0, lt=2**63, description="root of all random streams of the study")
    startup_trials: int = Field(
        10, ge=0, le=100_000, description="trials drawn at random before the sampler learns"
    )
    min_epochs: int = Field(
        1, ge=1, le=10_000, description="epochs that each trial gets before it may be pruned"
    )
    reduction_factor: int = Field(
        3, ge=2, le=100, description="one trial in this many passes each comparison"
    )


class Confirm(Frozen):
    """The confirmation: the best configurations and the baseline, trained on fresh seeds and compared."""

    top: int = Field(3, ge=1, le=100, description="number of configurations to confirm")
    seeds: int = Field(
        5, ge=1, le=1_000, description="number of fresh seeds, the same for all configurations"
    )
    train_on: TrainOn = Field("train", description="images to train on: train, or train+validation")
    level: float = Field(
        0.05, gt=0, lt=0.5, description="significance level: chance of a verdict if nothing differs"
    )


class Watch(Frozen):
    """Measurements after each epoch, beside those of training and validation."""

    test_split: bool = Field(
        False, description="true to measure test_loss and test_accuracy; for a list of runs only"
    )
    diagnostics: bool = Field(
        False, description="true to measure dead or saturated units and gradient norms of each layer"
    )


class Run(NamedTable):
    """One configuration of a fixed list."""

    seeds: int = Field(1, ge=1, le=MAX_SEEDS, description="number of trainings, each on a seed of its own")

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters that the run sets, by name."""
        return {key: value for key, value in super().values().items() if key != "seeds"}


class Experiment(Frozen):
    """A question and the settings that answer it; ``experiments/`` has examples."""

    name: str = Field(description="name of the experiment, its study and its folder")
    question: str = Field("", max_length=10_000, description="question that the experiment answers")
    data: Data = Data()
    baseline: PartialConfiguration = PartialConfiguration()
    training: Training = Training()
    space: dict[str, Any] = Field(
        default_factory=dict, description="a value, a list or a range for each hyper-parameter"
    )
    search: Search = Search()
    run: list[Run] = Field(
        default_factory=list, max_length=1_000, description="configurations to train instead of a search"
    )
    ablate: dict[str, Any] = Field(
        default_factory=dict, description="a list of alternatives for each factor, and seeds"
    )
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
                "watch.test_split: [confirm] chooses its finalists before it reads the test split, so epochs"
                " may not show it; leave one of the two out"
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
        """Raise if two configurations of the ablation are equal: one would be compared with itself."""
        known = {self.baseline_configuration.id: "the baseline"}
        for alternative, changed in self.alternatives():
            if changed.id in known:
                raise ConfigError(
                    f"ablate.{alternative.factor}: {alternative.value!r} is the same configuration as"
                    f" {known[changed.id]}; leave it out"
                )
            known[changed.id] = f"{alternative.factor} {alternative.value}"

    @property
    def base(self) -> dict[str, Any]:
        """The baseline's full values, which hold wherever nothing else is set."""
        preset = PRESETS[self.baseline.preset or "lenet"]
        return overlay(preset, self.training.values() | self.baseline.values())

    @property
    def baseline_configuration(self) -> Configuration:
        """The baseline: the configuration that all others are compared with."""
        return configuration(self.base)

    @property
    def search_space(self) -> Space:
        """The space to search, with the baseline's values for what it leaves out."""
        return Space(self._dimensions, self.base)

    @cached_property
    def _dimensions(self) -> dict[str, Dimension]:
        return {key: parse_dimension(key, written) for key, written in self.space.items()}

    @cached_property
    def _factors(self) -> Factors | None:
        return parse_factors(self.ablate) if self.ablate else None

    def runs(self) -> list[tuple[str, Configuration]]:
        """Return the label and the configuration of each listed run, in the file's order."""
        return [
            (run.name or f"run {number}", self._changed(run)) for number, run in enumerate(self.run, start=1)
        ]

    def alternatives(self) -> list[tuple[Alternative, Configuration]]:
        """Return the ablation's alternatives with their configurations, in the file's order."""
        listed = self._factors.alternatives if self._factors else ()
        return [(alternative, self._changed(alternative.table)) for alternative in listed]

    def _changed(self, table: NamedTable) -> Configuration:
        """Return the baseline with a table's values, or the table's preset with them."""
        preset = PRESETS[table.preset or self.baseline.preset or "lenet"]
        kept = {"precision": self.base["precision"]} if table.preset else self.baseline.values()
        return configuration(overlay(preset, self.training.values() | kept | table.values()))

    @property
    def seeds(self) -> int:
        """Number of seeds that the baseline is trained on: as many as any configuration compared with it."""
        return self._factors.seeds if self._factors else max((run.seeds for run in self.run), default=1)

    def with_precision(self, native: Precision) -> Experiment:
        """Return the experiment with the precision ``native`` of the device in place of ``auto``.

        Precision is part of a configuration's hash, so ``auto`` is resolved before any hash is taken.
        """
        if self.base["precision"] != "auto":
            return self
        return self.model_copy(update={"baseline": self.baseline.model_copy(update={"precision": native})})

    def with_dataset(self, dataset: str, folder: str | None) -> Experiment:
        """Return the experiment on another data set, under a name that no experiment file can have.

        Args:
            dataset: Name of the data set, as in ``[data]``.
            folder: Folder of its IDX files, as in ``[data]``; None to find them without.
        """
        data = self.data.model_copy(update={"dataset": _checked_name(dataset), "folder": folder})
        return self.model_copy(update={"name": f"{self.name}@{dataset}", "data": data})

    @property
    def is_confirmed(self) -> bool:
        """True if a sweep ends with a confirmation: after a search, or if the file has ``[confirm]``."""
        return bool(self.space) or "confirm" in self.model_fields_set

    @property
    def trials(self) -> int:
        """Number of finished trials that the study is to have at the end; 0 without a space."""
        return self.search.trials if self.space else 0


def _checked_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not _NAME.match(name) or ".." in name or name != name.strip():
        raise ValueError(
            "must be 1 to 100 letters, digits, spaces, '.', '-' or '_', a letter or digit first"
            f", found {name[:60]!r}"
        )
    return name
