"""A study's storage as its only writer sees it: answered from memory, and written through.

Optuna reads the trials that are under way from the database before every draw and every decision of a
pruner, as other processes might have changed them. Nobody else writes here, so what was once read stays true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class SingleWriterStorage(InMemoryStorage):
    """A storage's studies, each from when it is first asked for by name.

    What is changed is written to the storage first. Only a trial that is asked for stays in memory until
    `commit`, which writes what was drawn for it as one transaction instead of one for every parameter.
    Identifiers are of our own.
    """

    def __init__(self, storage: BaseStorage) -> None:
        """Begin with no study in memory.

        Args:
            storage: Which nobody else writes to.
        """
        super().__init__()
        self._theirs = storage
        self._their_study: dict[int, int] = {}
        self._their_trial: dict[int, int] = {}
        #: The trial that only memory has, and its study.
        self._uncommitted: tuple[int, int] | None = None
        self._selection: Callable[[list[FrozenTrial]], list[FrozenTrial]] = list

    @contextmanager
    def showing(self, selection: Callable[[list[FrozenTrial]], list[FrozenTrial]]) -> Iterator[None]:
        """Have `get_all_trials` return only what ``selection`` leaves of them, for as long as this lasts."""
        self._selection = selection
        try:
            yield
        finally:
            self._selection = list

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See `BaseStorage`, and `showing`."""
        return self._selection(super().get_all_trials(study_id, deepcopy, states))

    def commit(self) -> None:
        """Write the trial that was asked for, if it is not written yet.

        Raises:
            RuntimeError: If somebody else has written to the storage.
        """
        if self._uncommitted is None:
            return
        trial_id, study_id = self._uncommitted
        trial, study = self.get_trial(trial_id), self._their_study[study_id]
        theirs = self._theirs.create_new_trial(study, trial)
        if self._theirs.get_trial_id_from_study_id_trial_number(study, trial.number) != theirs:
            raise RuntimeError(f"trial {trial.number} is another's: somebody else writes to this study")
        self._their_trial[trial_id] = theirs
        self._uncommitted = None

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
        if self._uncommitted is not None and self._uncommitted[1] == study_id:
            self._uncommitted = None
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
        """See `BaseStorage`; without a template it is written by `commit`."""
        self.commit()  # so that trials have the same numbers there
        trial_id = super().create_new_trial(study_id, template_trial)
        self._uncommitted = trial_id, study_id
        if template_trial is not None:
            self.commit()
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """See `BaseStorage`."""
        if (theirs := self._their_trial.get(trial_id)) is not None:
            self._theirs.set_trial_param(theirs, param_name, param_value_internal, distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `BaseStorage`."""
        if trial_id not in self._their_trial:
            self.commit()
        if not self._theirs.set_trial_state_values(self._their_trial[trial_id], state, values):
            return False
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `BaseStorage`."""
        if (theirs := self._their_trial.get(trial_id)) is not None:
            self._theirs.set_trial_intermediate_value(theirs, step, intermediate_value)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        if (theirs := self._their_trial.get(trial_id)) is not None:
            self._theirs.set_trial_user_attr(theirs, key, value)
        super().set_trial_user_attr(trial_id, key, _as_kept(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        if (theirs := self._their_trial.get(trial_id)) is not None:
            self._theirs.set_trial_system_attr(theirs, key, value)
        super().set_trial_system_attr(trial_id, key, _as_kept(value))

    def _take(self, theirs: int, name: str) -> int:
        """Read a study into memory and return its identifier."""
        study_id = super().create_new_study(self._theirs.get_study_directions(theirs), name)
        self._their_study[study_id] = theirs
        for key, value in self._theirs.get_study_user_attrs(theirs).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in self._theirs.get_study_system_attrs(theirs).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in self._theirs.get_all_trials(theirs, deepcopy=False):
            self._their_trial[super().create_new_trial(study_id, trial)] = trial._trial_id
        return study_id


def _as_kept(value: Any) -> Any:
    """Return what a database will give back for ``value``: a list for a tuple, and a copy."""
    return json.loads(json.dumps(value))
