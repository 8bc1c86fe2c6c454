"""How a sweep stands at one moment: plain records, which ``progress.json`` holds for whoever watches."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

#: What a sweep is at; the last three are its ends.
Phase = Literal[
    "loading",
    "search",
    "confirmation",
    "timing",
    "reading",
    "page",
    "uploading",
    "done",
    "interrupted",
    "failed",
]
#: What people are told of each.
PHASES: dict[Phase, str] = {
    "loading": "loading libraries, data and stores",
    "search": "searching",
    "confirmation": "confirming on fresh seeds",
    "timing": "timing each configuration alone",
    "reading": "reading the test split",
    "page": "writing tables and page",
    "uploading": "uploading to MLflow",
    "done": "done",
    "interrupted": "interrupted",
    "failed": "failed",
}
ENDS: tuple[Phase, ...] = ("done", "interrupted", "failed")
#: Number of notes that are kept.
MAX_NOTES = 8


@dataclass(frozen=True)
class Counts:
    """How many attempts have ended in which way, those of earlier calls included, confirmations left out."""

    complete: int = 0
    pruned: int = 0
    infeasible: int = 0
    failed: int = 0
    retried: int = 0


@dataclass(frozen=True)
class Running:
    """A training that is under way.

    Attributes:
        label: Name that people see, such as ``trial 12``.
        epochs: Number of epochs that it gets unless it is pruned.
        differs: The values that distinguish its configuration, such as ``lr 0.0031, channels 12``.
        ran_s: Seconds since it began.
        trained_s: Seconds from its beginning to the end of its last epoch.
        epoch: Number of epochs that are trained; 0 before the first.
        accuracy: Validation accuracy after the last epoch, in [0, 1], or the training accuracy without a
            validation split; None before the first epoch.
        examples_per_s: Training images per second in the last epoch; None before the first.
    """

    label: str
    epochs: int
    differs: str = ""
    ran_s: float = 0.0
    trained_s: float = 0.0
    epoch: int = 0
    accuracy: float | None = None
    examples_per_s: float | None = None


@dataclass(frozen=True)
class Incumbent:
    """The best configuration so far.

    Attributes:
        label: Name that people see.
        val_accuracy: Validation accuracy, in [0, 1].
        delta: Difference to the baseline's; None if the baseline is not trained yet.
    """

    label: str
    val_accuracy: float
    delta: float | None = None


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the sweep ends: in four cases of five between ``low_s`` and ``high_s``."""

    low_s: float
    middle_s: float
    high_s: float


@dataclass(frozen=True)
class Note:
    """A line for the user, and the time at which it was said, in seconds since 1970."""

    at: float
    text: str


@dataclass(frozen=True)
class Progress:
    """How a sweep stands at one moment.

    Attributes:
        experiment: Name of the experiment; empty until its file is read.
        phase: Work that the sweep is at.
        detail: More about the phase, such as ``3 configurations, 5 seeds``; may be empty.
        n_done: Number of trials of the search, or of trainings of a list or a confirmation, that have ended.
        n_total: Number of trials or trainings of the phase; 0 if it has none.
        unit: Thing that ``n_total`` counts: ``trial`` or ``training``.
        n_seeds: Number of fresh seeds of a confirmation; 0 before it.
        counts: Number of attempts that have ended in which way.
        running: Trainings that are under way.
        incumbent: Best configuration so far; None if nothing is complete.
        left: Time left; None if there is nothing to go by.
        stopping: Work that an interrupt waits for; empty without one.
        tracking: State of the upload to MLflow: ``live``, ``spooling 12 runs``, or empty before it begins.
        memory_bytes: Free memory of the machine; None if unknown.
        disk_bytes: Free space on the disk of the root; None if unknown.
        notes: Last lines for the user.
        ran_s: Seconds since the command began.
        updated: Time at which this was written, in seconds since 1970 by the sweep's own clock.
        pid: Process of the sweep.
        host: Name of its machine.
    """

    experiment: str = ""
    phase: Phase = "loading"
    detail: str = ""
    n_done: int = 0
    n_total: int = 0
    unit: str = "trial"
    n_seeds: int = 0
    counts: Counts = Counts()
    running: tuple[Running, ...] = ()
    incumbent: Incumbent | None = None
    left: TimeLeft | None = None
    stopping: str = ""
    tracking: str = ""
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    notes: tuple[Note, ...] = ()
    ran_s: float = 0.0
    updated: float = 0.0
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)

    @property
    def has_ended(self) -> bool:
        """True if the sweep has ended, be it well or not."""
        return self.phase in ENDS

    @property
    def n_seeds_done(self) -> int:
        """Number of fresh seeds that are done: a confirmation trains all configurations on a seed in turn."""
        return self.n_done * self.n_seeds // self.n_total if self.n_total else 0

    def to_json(self) -> str:
        """Return the text of ``progress.json``."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Return the progress that `to_json` has written, perhaps by another version.

        Raises:
            ValueError: If the text is not such a progress.
        """
        try:
            written = json.loads(text)
            progress = _known(cls, written)
            return _checked(
                cls(
                    **progress
                    | {
                        "counts": Counts(**_known(Counts, written.get("counts") or {})),
                        "running": tuple(Running(**_known(Running, r)) for r in written.get("running", ())),
                        "notes": tuple(Note(**_known(Note, note)) for note in written.get("notes", ())),
                        "incumbent": _or_none(Incumbent, written.get("incumbent")),
                        "left": _or_none(TimeLeft, written.get("left")),
                    }
                )
            )
        except (TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"not the progress of a sweep: {error}") from None


def _known(cls: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a record's fields; those that another version has beside them are left out."""
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in written.items() if name in names}


def _or_none(cls: Any, written: Mapping[str, Any] | None) -> Any:
    return None if written is None else cls(**_known(cls, written))


#: The types of the fields that have a plain one, by their annotation.
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "int | None": (int, type(None)),
}


def _checked(progress: Progress) -> Progress:
    """Return a progress unless a value is not of its type: anybody may have written the file."""
    parts = (progress.counts, progress.incumbent, progress.left)
    for record in (progress, *parts, *progress.running, *progress.notes):
        for each in fields(record) if record is not None else ():
            kinds = _TYPES.get(str(each.type))
            if kinds and not isinstance(getattr(record, each.name), kinds):
                raise ValueError(f"not the progress of a sweep: {each.name}")
    if progress.phase not in get_args(Phase):
        raise ValueError(f"not the progress of a sweep: phase {progress.phase!r}")
    return progress
