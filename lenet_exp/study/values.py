"""What a study keeps besides its trials: its fingerprint, its id and lineage, and values under a name.

Everything is written only as long as the study is ours, which checks decide that are registered here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import optuna

from lenet_exp.base.errors import ConfigError, LenetExpError, UnreachableError
from lenet_exp.base.lineage import MARK, Lineage
from lenet_exp.study.trials import FINGERPRINT, stored_fingerprint


class KeptValues:
    """The values of a study that is opened for writing; the base of `lenet_exp.study.study.Study`."""

    def __init__(self, search: optuna.Study, fixed: optuna.Study, flush: Callable[[], None]) -> None:
        """Read what is stored.

        Args:
            search: Optuna study of the search, which has fingerprint and mark.
            fixed: Optuna study of the fixed trainings, which has the values that `keep` stores.
            flush: Function that returns once every commit is on the disk.
        """
        self._search, self._fixed, self._flush = search, fixed, flush
        attributes = search.user_attrs
        #: Id of the study, the sweeps that wrote to it, and the keys of the attempts that it had when opened.
        self.lineage = Lineage.of_mark(attributes.get(MARK), fingerprint=stored_fingerprint(attributes) or {})
        self._on_keep: Callable[[str, Any, int], None] = lambda *_: None
        self._checks: list[Callable[[], None]] = []
        #: Calls a function that reads the storage anew, until the storage answers, and returns its result.
        self.patiently: Callable[[Callable[[], Any]], Any] = lambda read: read()
        #: Error of the check that discovered that the study is no longer ours; None as long as it is.
        self.lost: LenetExpError | None = None

    def guard(self, check: Callable[[], None], *, first: bool = False) -> None:
        """Register a function that is called before an attempt is begun or ended, and before a value is kept.

        Args:
            check: Function that raises a `LenetExpError` if the study is no longer ours. From then on
                every write of this object raises that error (see `lost`), and the storage is left alone.
            first: True to call it before all others, as it makes sure that nobody else writes meanwhile.
        """
        self._checks.insert(0 if first else len(self._checks), check)

    def ensure_ours(self) -> None:
        """Raise the error of a guard if the study is no longer ours to write.

        Raises:
            LenetExpError: If a guard says so, now or earlier; from then on the study is `lost`.
            UnreachableError: If the storage does not answer, which does not make the study lost.
        """
        if self.lost is not None:
            raise self.lost
        try:
            for check in self._checks:
                check()
        except UnreachableError:
            raise
        except LenetExpError as error:
            self.lost = error
            raise

    def refused(self, error: LenetExpError) -> None:
        """Take note that the storage refused a write; raise a guard's error, which says who has the study."""
        if self.lost is None:
            try:
                with suppress(UnreachableError):
                    self.ensure_ours()
            finally:
                self.lost = self.lost or error

    def check_fingerprint(self, fingerprint: Mapping[str, Any]) -> None:
        """Store the fingerprint of a new study, or compare it with the one stored when the study was started.

        Args:
            fingerprint: JSON values of space, baseline, training, data, sampler and pruner.

        Raises:
            ConfigError: If the study was started with other settings or by another program; it is unchanged.
        """
        stored = stored_fingerprint(self._search.user_attrs)
        now = json.loads(json.dumps(fingerprint))
        # A study with an id but no fingerprint was restored from a spool that had lost it.
        if stored is None and (self.lineage.id or not self._search.get_trials(deepcopy=False)):
            self._search.set_user_attr(FINGERPRINT, now)
            self._search.set_user_attr("optuna_version", optuna.__version__)
        else:
            ensure_same(stored, now, self._search.study_name)

    def begin_sweep(self, spool: Lineage) -> None:
        """Record that a sweep begins; a new study gets its id.

        Args:
            spool: Lineage of the spool, which belongs to this study.
        """
        self.lineage = self.lineage.with_sweep(self._search.study_name, spool)
        self._search.set_user_attr(MARK, self.lineage.mark())
        self._flush()

    def keep(self, name: str, value: Any) -> None:
        """Store a JSON value in the study, and return once it is on the disk.

        Args:
            name: Name of the value, such as ``confirm_plan``; `kept` reads it by this name.
            value: JSON value to store; it replaces an earlier value of the same name.
        """
        self.ensure_ours()
        n_kept = self.lineage.n_kept + 1
        self._on_keep(name, value, n_kept)
        self.restore_kept({name: value}, n_kept)

    def restore_kept(self, values: Mapping[str, Any], n_kept: int) -> None:
        """Store values that the spool has already, as `keep` does.

        Args:
            values: JSON values by name.
            n_kept: Number of values that were kept so far, these included.
        """
        for name, value in values.items():
            self._fixed.set_user_attr(f"lenet_exp.{name}", value)
        self.lineage = replace(self.lineage, n_kept=n_kept)
        self._search.set_user_attr(MARK, self.lineage.mark())
        self._flush()

    def when_kept(self, on_keep: Callable[[str, Any, int], None]) -> None:
        """Register a function that `keep` calls before it stores a value.

        Args:
            on_keep: Function of the name, the value, and the number of values kept so far, this one included.
        """
        self._on_keep = on_keep

    def kept(self, name: str) -> Any:
        """Return the value that `keep` stored under ``name``, or None if there is none."""
        return self.all_kept().get(name)

    def all_kept(self) -> dict[str, Any]:
        """Return all values that `keep` stored, by name."""
        return {key.removeprefix("lenet_exp."): value for key, value in self._fixed.user_attrs.items()}


def ensure_same(then: Mapping[str, Any] | None, now: Mapping[str, Any], name: str) -> None:
    """Check that a study's fingerprint has not changed.

    Args:
        then: Stored fingerprint; None if the study has none.
        now: Present fingerprint.
        name: Name of the study.

    Raises:
        ConfigError: If the two differ, or there is none because another program created the study.
    """
    if then is None:
        raise ConfigError(
            f"study {name!r} was created by another program; rename the experiment (name = ...)"
        )
    if then != now:
        changes = "; ".join(differences(then, now))
        raise ConfigError(
            f"study {name!r} was started with other settings: {changes}; "
            "rename the experiment (name = ...), or undo the change"
        )


def differences(then: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield each difference between two fingerprints, for example "space.lr was 0.1, is now 0.2".

    Args:
        then: Stored fingerprint, or a value within it.
        now: Current fingerprint, or the value at the same place in it.
        key: Place of the two values in the fingerprints, such as ``space.lr``; empty for the whole.
    """
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys()):
            if then.get(name) != now.get(name):
                yield from differences(then.get(name), now.get(name), f"{key}.{name}" if key else name)
    else:
        shown = [json.dumps(value) if value is not None else "not set" for value in (then, now)]
        yield f"{key} was {shown[0]}, is now {shown[1]}"
