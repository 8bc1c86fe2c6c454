"""`Experiment`: all settings of an experiment file; `lenet_exp.config.loader` reads one from TOML."""

from __future__ import annotations

import re
import shlex
import unicodedata
from functools import cached_property
from pathlib import Path
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
#: Largest number of fresh seeds of a confirmation.
MAX_CONFIRM_SEEDS = 1_000
#: Number of seeds that are trained first with ``seeds = "auto"``. With fewer the spread is so uncertain that
#: many more have to follow, see experiments/STATISTICS.md.
FIRST_SEEDS = 8
PrunerName = Literal["hyperband", "halving", "median", "none"]


class Data(Frozen):
    """The ``[data]`` section: the data set, and the division of its training images."""

    dataset: str = Field(
        "fashion-mnist", description="fashion-mnist, mnist, kmnist, or a name for your own files"
    )
    folder: str | None = Field(None, description="folder with the IDX files, searched before any download")
    validation: int = Field(
        10_000, ge=1, le=10_000_000, description="number of training images set aside for validation"
    )
    limit: int | None = Field(
        None, ge=1, le=10_000_000, description="number of the other images to train on; by default all"
    )
    resize: int = Field(28, ge=4, le=256, description="side of the images in pixels, after resizing")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the random division into training and validation images"
    )

    @field_validator("dataset")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _checked_name(name)


class Training(Frozen):
    """The ``[training]`` section: settings of every training that does not have its own value for them."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(256, ge=1, le=65_536, description="images per step")
    precision: Precision = Field(
        "auto", description="float32, bfloat16, or auto: bfloat16 if the device supports it in hardware"
    )
    loss: Loss = Field("cross_entropy", description="cross_entropy, or mse against one-hot labels")
    compile: bool = Field(
        False, description="true to run each training step as one compiled graph on an accelerator"
    )
    kernels: Kernels = Field(
        "fast", description="layers on a CPU: fast for this project's own, torch for PyTorch's with autograd"
    )

    def values(self) -> dict[str, Any]:
        """Return those settings that are hyper-parameters, and the epochs, by name."""
        return self.model_dump(exclude={"compile", "kernels"})


class Search(Frozen):
    """The ``[search]`` section: how many trials are drawn from the space, and how."""

    trials: int = Field(
        60,
        ge=0,
        le=1_000_000,
        description="number of trials to have ended in total, including those of earlier calls",
    )
    sampler: SamplerName = Field("tpe", description="tpe, random, grid, qmc or cmaes")
    pruner: PrunerName = Field("hyperband", description="hyperband, halving, median or none")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed from which all random streams of the study are derived"
    )
    startup_trials: int = Field(
        10, ge=0, le=100_000, description="number of random trials before tpe or cmaes learns from results"
    )
    min_epochs: int = Field(1, ge=1, le=10_000, description="number of epochs before a trial may be pruned")
    reduction_factor: int = Field(
        3, ge=2, le=100, description="hyperband and halving keep one trial in this many"
    )


class Confirm(Frozen):
    """The ``[confirm]`` section: how finalists are compared with the baseline on fresh seeds."""

    top: int = Field(
        3, ge=1, le=100, description="number of finalists: the best configurations of the search"
    )
    seeds: int | Literal["auto"] = Field(
        5,
        description="number of fresh seeds, the same for all finalists and the baseline; auto: as many as"
        " precision needs, which eight others tell on validation images",
    )
    precision: float = Field(
        0.003,
        gt=0,
        lt=1,
        description="with auto seeds: how far the interval of a difference may reach to either side",
    )
    max_seeds: int = Field(
        30, ge=2, le=MAX_CONFIRM_SEEDS, description="with auto seeds: largest number to choose"
    )
    margin: float = Field(
        0.005,
        gt=0,
        lt=1,
        description="difference in accuracy that matters: a tie is told how many seeds would find it",
    )
    train_on: Literal["train", "train+validation"] = Field(
        "train", description="images to train on: train, or train+validation for both splits"
    )
    resample: bool = Field(
        False, description="true to divide the images anew for each fresh seed, for all configurations alike"
    )
    level: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="significance level: chance of any verdict but tie if nothing differs, over all readings"
        " of the test split",
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_auto(cls, written: Any) -> Any:
        is_number = isinstance(written, int) and not isinstance(written, bool)
        if written != "auto" and not (is_number and 1 <= written <= MAX_CONFIRM_SEEDS):
            raise ValueError(
                f"must be a whole number from 1 to {MAX_CONFIRM_SEEDS:,}, or 'auto', found {written!r}"
            )
        return written

    @model_validator(mode="after")
    def _has_validation_images(self) -> Confirm:
        if self.train_on == "train":
            return self
        if self.seeds == "auto":
            raise ConfigError(
                f"confirm.seeds: 'auto' looks at validation images, of which train_on = {self.train_on!r}"
                " leaves none; give a number, or leave train_on out"
            )
        if self.resample:
            raise ConfigError(
                f"confirm.resample: not allowed with train_on = {self.train_on!r}, which leaves no division"
                " to draw; leave one of the two out"
            )
        return self

    @property
    def images(self) -> TrainOn:
        """The images that every network of the confirmation is trained on: both keys in one value."""
        return "train, resampled" if self.resample else self.train_on


class Watch(Frozen):
    """The ``[watch]`` section: what to measure after each epoch, in addition to training and validation."""

    test_split: bool = Field(
        False, description="true to measure test_loss and test_accuracy; allowed with [[run]] only"
    )
    diagnostics: bool = Field(
        False, description="true to measure gradient norms and dead or saturated units of each layer"
    )
    system_metrics: bool = Field(
        False, description="true to measure what each training uses of the processor, memory and GPU"
    )


class Run(NamedTable):
    """A ``[[run]]`` of the experiment file: a listed configuration to train."""

    seeds: int = Field(1, ge=1, le=MAX_SEEDS, description="number of trainings, each from a different seed")

    def values(self) -> dict[str, Any]:
        """Return the hyper-parameters that the run sets, and the epochs, by name."""
        return {key: value for key, value in super().values().items() if key != "seeds"}


class Experiment(Frozen):
    """A question and the settings of the trainings that answer it; ``experiments/`` has examples."""

    name: str = Field(description="name of the experiment, of its study and of its folder")
    question: str = Field("", max_length=10_000, description="question that the experiment is to answer")
    data: Data = Data()
    baseline: PartialConfiguration = PartialConfiguration()
    training: Training = Training()
    space: dict[str, Any] = Field(
        default_factory=dict, description="a value, a list or a range for each hyper-parameter to search"
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
    _file: str = PrivateAttr("EXPERIMENT")

    @property
    def text(self) -> str:
        """The text of the experiment file, without overrides; without a file, a comment with the settings."""
        made = self.model_dump_json(exclude_unset=True)
        return self._text or f"# Made in Python, without a file.\n# {made}\n"

    @property
    def file(self) -> str:
        """Path of the experiment's file, as the user named it."""
        return self._file

    def keep_source(self, text: str, file: str) -> None:
        """Remember what the experiment was read from.

        Args:
            text: Text of the experiment file.
            file: Path of the file, as the user named it.
        """
        self._text, self._file = text, file

    def command(self, name: str, root: Path) -> str:
        """Return a command about this experiment that a user can paste.

        Args:
            name: Name of the command and its own flags, such as ``confirm --again``.
            root: Folder below which sweeps write everything; left out if it is the default.

        Example:
            >>> Experiment(name="e").command("sweep", Path("my runs"))
            "lenet-exp sweep EXPERIMENT --root 'my runs'"
        """
        place = [] if root == Path("mlruns") else ["--root", shlex.quote(str(root))]
        command, *flags = name.split()
        return " ".join(["lenet-exp", command, shlex.quote(self._file), *flags, *place])

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
                "watch.test_split: not allowed with [confirm], which chooses its finalists before the test"
                " split is opened; leave one of the two out"
            )
        if self.watch.test_split and (self.space or self.ablate):
            raise ConfigError(
                f"watch.test_split: not allowed with {given[0]}, which chooses by what is measured;"
                " leave it out, or list the configurations as [[run]]"
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
        """The baseline's values of all hyper-parameters, by name: the defaults of all configurations."""
        preset = PRESETS[self.baseline.preset or "lenet"]
        return overlay(preset, self.training.values() | self.baseline.values())

    @property
    def baseline_configuration(self) -> Configuration:
        """The baseline: the configuration that all others are compared with."""
        return configuration(self.base)

    @property
    def search_space(self) -> Space:
        """The space to search; hyper-parameters without a dimension have the baseline's values."""
        return Space(self._dimensions, self.base)

    @cached_property
    def _dimensions(self) -> dict[str, Dimension]:
        return {key: parse_dimension(key, written) for key, written in self.space.items()}

    @cached_property
    def _factors(self) -> Factors | None:
        return parse_factors(self.ablate) if self.ablate else None

    def runs(self) -> list[tuple[str, Configuration]]:
        """Return the label and the configuration of each ``[[run]]``, in the file's order."""
        return [
            (run.name or f"run {number}", self._changed(run)) for number, run in enumerate(self.run, start=1)
        ]

    def alternatives(self) -> list[tuple[Alternative, Configuration]]:
        """Return each alternative of the ablation with its configuration, in the file's order."""
        listed = self._factors.alternatives if self._factors else ()
        return [(alternative, self._changed(alternative.table)) for alternative in listed]

    def _changed(self, table: NamedTable) -> Configuration:
        """Return the configuration that ``table`` makes of the baseline, or of the preset that it names."""
        preset = PRESETS[table.preset or self.baseline.preset or "lenet"]
        kept = {"precision": self.base["precision"]} if table.preset else self.baseline.values()
        return configuration(overlay(preset, self.training.values() | kept | table.values()))

    @property
    def seeds(self) -> int:
        """Number of seeds to train the baseline from: that of the alternatives, or the largest of any run."""
        return self._factors.seeds if self._factors else max((run.seeds for run in self.run), default=1)

    def with_precision(self, native: Precision) -> Experiment:
        """Return the experiment with the device's precision ``native`` in place of ``auto``.

        The precision is part of a configuration's hash, so ``auto`` is replaced before any hash is computed.
        """
        if self.base["precision"] != "auto":
            return self
        return self.model_copy(update={"baseline": self.baseline.model_copy(update={"precision": native})})

    def with_dataset(self, dataset: str, folder: str | None) -> Experiment:
        """Return the same experiment on another data set, under a new name: ``NAME@DATASET``.

        No experiment file can have that name, so the two experiments never share a study.

        Args:
            dataset: Name of the data set, as in ``[data]``.
            folder: Folder with its IDX files, as in ``[data]``; None to search only the usual places.
        """
        data = self.data.model_copy(update={"dataset": _checked_name(dataset), "folder": folder})
        return self.model_copy(update={"name": f"{self.name}@{dataset}", "data": data})

    @property
    def is_confirmed(self) -> bool:
        """True if a sweep confirms its finalists: if the file has a ``[space]`` or a ``[confirm]``."""
        return bool(self.space) or "confirm" in self.model_fields_set

    @property
    def trials(self) -> int:
        """Number of trials after which the search is finished; 0 if the experiment has no ``[space]``."""
        return self.search.trials if self.space else 0


def _checked_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not _NAME.match(name) or ".." in name or name != name.strip():
        raise ValueError(
            "must be 1 to 100 letters, digits, spaces, '.', '-' or '_', a letter or digit first"
            f", found {name[:60]!r}"
        )
    return name
