"""The storage of a study's only writer: reads are answered from memory, writes go through to the database.

Before every draw and every decision of a pruner Optuna reads the running trials from the database, as other
processes might have changed them. No other process writes here, so what was read once stays true. This halves
the driver's work in a small study (experiments/LOG.md, Speed: the driver, and a processor with AVX2 alone).
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
    """Keeps studies of a `TrialStorage` in memory, and writes every change through to it.

    A study is read into memory when it is first asked for by name. A change of a trial is written before the
    call returns or, within a `transaction`, when that ends. A change that the `TrialStorage` refused is
    written with the trial's next one. Identifiers of studies and trials are this class's own.
    """

    def __init__(self, storage: TrialStorage) -> None:
        """Start with no study in memory.

        Args:
            storage: Storage to read and write; no other process may write to the studies used here.
        """
        super().__init__()
        self._storage = storage
        #: Identifiers of studies in the `TrialStorage`, by those of this class.
        self._storage_ids: dict[int, int] = {}
        #: For each trial that has not ended, its study and the trial as last written, None if it never was.
        self._open: dict[int, tuple[int, Written | None]] = {}
        #: Trials that have changed in the transaction, in order; None outside a transaction.
        self._changed: dict[int, None] | None = None
        #: For each trial number, False if the trial is hidden; trials beyond the end are shown.
        self._shown: list[bool] = []

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Context manager: write the trials that change in the ``with`` block at its end, each in one go.

        After an error in the block nothing is written. A driver that dies in the block leaves nothing of it,
        and so no trial without its configuration.
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
        """Context manager: leave trials with these numbers out of `get_all_trials` in the ``with`` block."""
        self._shown = [number not in numbers for number in range(max(numbers, default=-1) + 1)]
        try:
            yield
        finally:
            self._shown = []

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return a study's trials in the order of their numbers, without those that are hidden.

        Args:
            study_id: Identifier of the study.
            deepcopy: True to return copies that the caller may change.
            states: States of the trials to return; None for all states.
        """
        if not self._shown:
            return super().get_all_trials(study_id, deepcopy, states)
        trials = super().get_all_trials(study_id, deepcopy=False)
        shown = compress(trials, chain(self._shown, repeat(True)))
        trials = [trial for trial in shown if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create a study and return its identifier.

        Args:
            directions: Direction of each objective.
            study_name: Name that no study has; None to let the storage choose a name.
        """
        storage_id = self._storage.create_new_study(directions, study_name)
        return self._load(storage_id, self._storage.get_study_name_from_id(storage_id))

    def n_written(self, study_name: str) -> tuple[int, int]:
        """Return how many trials of a study are in the storage, and how many of these have ended there."""
        study_id = self.get_study_id_from_name(study_name)
        n_trials = len(super().get_all_trials(study_id, deepcopy=False))
        unended = [written for study, written in self._open.values() if study == study_id]
        return n_trials - unended.count(None), n_trials - len(unended)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the identifier of a study, which is first read from the storage if it is not in memory.

        Raises:
            KeyError: If the storage has no such study.
        """
        try:
            return super().get_study_id_from_name(study_name)
        except KeyError:
            return self._load(self._storage.get_study_id_from_name(study_name), study_name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study and its trials, from memory and from the storage."""
        self._storage.delete_study(self._storage_ids.pop(study_id))
        self._open = {trial: study for trial, study in self._open.items() if study[0] != study_id}
        super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a study, in memory and in the storage.

        Args:
            study_id: Identifier of the study.
            key: Name of the attribute.
            value: JSON value to store.
        """
        self._storage.set_study_user_attr(self._storage_ids[study_id], key, value)
        super().set_study_user_attr(study_id, key, _as_stored(value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a study, which Optuna itself uses.

        Args:
            study_id: Identifier of the study.
            key: Name of the attribute.
            value: JSON value to store.
        """
        self._storage.set_study_system_attr(self._storage_ids[study_id], key, value)
        super().set_study_system_attr(study_id, key, _as_stored(value))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial and return its identifier.

        Args:
            study_id: Identifier of the study.
            template_trial: Trial to copy, such as one for the queue; None to create an empty RUNNING trial.
        """
        # Trials that the storage refused are written first, so that trials have the same numbers in both.
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
        """Set a parameter of a trial.

        Args:
            trial_id: Identifier of the trial.
            param_name: Name of the parameter.
            param_value_internal: Drawn value as a number; for a categorical parameter, the choice's index.
            distribution: Distribution that the value was drawn from.
        """
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._has_changed(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set the state of a trial, and its final values.

        Args:
            trial_id: Identifier of the trial.
            state: New state of the trial.
            values: Final value of each objective; None to set none.

        Returns:
            False if ``state`` is RUNNING and the trial is not WAITING; nothing is changed then.
        """
        is_set = super().set_trial_state_values(trial_id, state, values)
        if is_set:
            self._has_changed(trial_id)
        return is_set

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value that a trial reports for a step.

        Args:
            trial_id: Identifier of the trial.
            step: Number of the epoch.
            intermediate_value: The epoch's ``val_accuracy``; may be NaN.
        """
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._has_changed(trial_id)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a user attribute of a trial.

        Args:
            trial_id: Identifier of the trial.
            key: Name of the attribute.
            value: JSON value to store.
        """
        super().set_trial_user_attr(trial_id, key, _as_stored(value))
        self._has_changed(trial_id)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set a system attribute of a trial, which Optuna itself uses.

        Args:
            trial_id: Identifier of the trial.
            key: Name of the attribute.
            value: JSON value to store.
        """
        super().set_trial_system_attr(trial_id, key, _as_stored(value))
        self._has_changed(trial_id)

    def _has_changed(self, trial_id: int) -> None:
        if self._changed is None:
            self._write(trial_id)
        else:
            self._changed[trial_id] = None

    def _write(self, trial_id: int) -> None:
        study_id, written = self._open[trial_id]
        trial = self.get_trial(trial_id)
        written = self._storage.write_trial(self._storage_ids[study_id], trial, written)
        if trial.state.is_finished():
            del self._open[trial_id]
        else:
            self._open[trial_id] = study_id, written

    def _load(self, storage_id: int, name: str) -> int:
        """Read a study of the storage into memory, and return its identifier here."""
        study_id = super().create_new_study(self._storage.get_study_directions(storage_id), name)
        self._storage_ids[study_id] = storage_id
        for key, value in self._storage.get_study_user_attrs(storage_id).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in self._storage.get_study_system_attrs(storage_id).items():
            super().set_study_system_attr(study_id, key, value)
        for trial in self._storage.get_all_trials(storage_id, deepcopy=False):
            trial_id = super().create_new_trial(study_id, trial)
            if not trial.state.is_finished():
                stored_id = self._storage.get_trial_id_from_study_id_trial_number(storage_id, trial.number)
                self._open[trial_id] = study_id, Written(stored_id, snapshot(trial))
        return study_id


def _as_stored(value: Any) -> Any:
    """Return a copy of ``value`` as a database returns it, with lists in place of tuples."""
    return json.loads(json.dumps(value))
