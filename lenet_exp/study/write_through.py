"""A study's storage as its only writer sees it: answered from memory, and written through.

Optuna reads the trials that are under way from the database before every draw and every decision of a
pruner, as other processes might have changed them. Nobody else writes here, so what was once read stays true.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, compress, repeat
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lenet_exp.study.rdb import TrialStorage, Written, snapshot


class SingleWriterStorage(InMemoryStorage):
    """A storage's studies, each from when it is first asked for by name.

    Whatever changes of a trial is in the storage when the call returns or, within a `transaction`, when that
    ends. What the storage has refused is written with the trial's next change. Identifiers are of our own.
    """

    def __init__(self, storage: TrialStorage) -> None:
        """Begin with no study in memory.

        Args:
            storage: A storage that nobody else writes to.
        """
        super().__init__()
        self._theirs = storage
        self._their_study: dict[int, int] = {}
        #: Of each trial that has not ended, its study, and what was written of it.
        self._open: dict[int, tuple[int, Written | None]] = {}
        #: What has changed in the transaction; None outside of one.
        self._changed: dict[int, None] | None = None
        #: For the first trials of a study, whether they are shown.
        self._shown: list[bool] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Have each trial that changes meanwhile written as one transaction, when this ends without an error.

        A driver that dies before has left nothing of it: no trial without its configuration.
        """
        if self._changed is not None:
            yield
            return
        self._changed = {}
        try:
            yield
            changed = self._changed
        finally:
            self._changed = None
        for trial_id in changed:
            self._write(trial_id)

    @contextmanager
    def hiding(self, numbers: Collection[int]) -> Iterator[None]:
        """Have `get_all_trials` leave out the trials with these numbers, for as long as this lasts."""
        self._shown = [number not in numbers for number in range(max(numbers, default=-1) + 1)]
        try:
            yield
        finally:
            self._shown = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See `BaseStorage`, and `hiding`."""
        if not self._shown:
            return super().get_all_trials(study_id, deepcopy, states)
        trials = super().get_all_trials(study_id, deepcopy=False)
        shown = compress(trials, chain(self._shown, repeat(True)))
        found = [trial for trial in shown if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See `BaseStorage`."""
        theirs = self._theirs.create_new_study(directions, study_name)
        return self._take(theirs, self._theirs.get_study_name_from_id(theirs))

    def get_study_id_from_name(self, study_name: str) -> int:
        """See `BaseStorage`; the study is read, if it was not yet."""
        try:
            return super().get_study_id_from_name(study_name)
        except KeyError:
            return self._take(self._theirs.get_study_id_from_name(study_name), study_name)

    def delete_study(self, study_id: int) -> None:
        """See `BaseStorage`."""
        self._theirs.delete_study(self._their_study.pop(study_id))
        self._open = {trial: study for trial, study in self._open.items() if study[0] != study_id}
        super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._theirs.set_study_user_attr(self._their_study[study_id], key, value)
        super().set_study_user_attr(study_id, key, _as_kept(value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._theirs.set_study_system_attr(self._their_study[study_id], key, value)
        super().set_study_system_attr(study_id, key, _as_kept(value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See `BaseStorage`."""
        # One that was refused goes first, so that trials have the same numbers there.
        for trial_id, (_, written) in list(self._open.items()):
            if written is None:
                self._write(trial_id)
        trial_id = super().create_new_trial(study_id, template_trial)
        self._open[trial_id] = study_id, None
        self._has_changed(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """See `BaseStorage`."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._has_changed(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `BaseStorage`."""
        is_set = super().set_trial_state_values(trial_id, state, values)
        if is_set:
            self._has_changed(trial_id)
        return is_set

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `BaseStorage`."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._has_changed(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        super().set_trial_user_attr(trial_id, key, _as_kept(value))
        self._has_changed(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        super().set_trial_system_attr(trial_id, key, _as_kept(value))
        self._has_changed(trial_id)

    def _has_changed(self, trial_id: int) -> None:
        if self._changed is None:
            self._write(trial_id)
        else:
            self._changed[trial_id] = None

    def _write(self, trial_id: int) -> None:
        study_id, written = self._open[trial_id]
        trial = self.get_trial(trial_id)
        written = self._theirs.write_trial(self._their_study[study_id], trial, written)
        if trial.state.is_finished():
            del self._open[trial_id]
        else:
            self._open[trial_id] = study_id, written

    def _take(self, theirs: int, name: str) -> int:
        """Read a study into memory and return its identifier."""
        study_id = super().create_new_study(self._theirs.get_study_directions(theirs), name)
        self._their_study[study_id] = theirs
        for key, value in self._theirs.get_study_user_attrs(theirs).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in self._theirs.get_study_system_attrs(theirs).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in self._theirs.get_all_trials(theirs, deepcopy=False):
            trial_id = super().create_new_trial(study_id, trial)
            if not trial.state.is_finished():
                their_trial = self._theirs.get_trial_id_from_study_id_trial_number(theirs, trial.number)
                self._open[trial_id] = study_id, Written(their_trial, snapshot(trial))
        return study_id


def _as_kept(value: Any) -> Any:
    """Return what a database will give back for ``value``: a list for a tuple, and a copy."""
    return json.loads(json.dumps(value))
