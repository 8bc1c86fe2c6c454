"""Tells whether a study and a spool belong together: by a random id, and by the sweeps that wrote them.

Neither a path nor a name can tell: a root is moved, copied, or reached by a link, and a store is replaced by
an older one or by that of another root. So a study gets a random id when it is begun, and each sweep adds a
random token to a list. Study, spool, MLflow's runs and the readings of the test split carry the id; study and
spool carry the list. If one list is the beginning of the other, the shorter was only not written last.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lenet_exp.base.errors import StoreError
from lenet_exp.base.messages import counted
from lenet_exp.base.records import RunKey

#: Key under which a study stores its mark, see `Lineage.mark`.
MARK = "lenet_exp.mark"


@dataclass(frozen=True)
class Lineage:
    """What a study, or a spool, says about its origin.

    Attributes:
        id: Random id of the study; empty if none was recorded, as before November 2026.
        sweeps: Token of each sweep that wrote to it, in order.
        n_kept: Number of values that `Study.keep` had stored so far.
        keys: Keys of all attempts that have a record.
        fingerprint: Settings that may not change in the study; empty if unknown.
        edited: Keys of the attempts whose record is not the one that was told, as somebody has changed it.
    """

    id: str = ""
    sweeps: tuple[str, ...] = ()
    n_kept: int = 0
    keys: frozenset[RunKey] = frozenset()
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    edited: frozenset[RunKey] = frozenset()

    @property
    def is_empty(self) -> bool:
        """True if nothing was recorded that could be lost."""
        return not (self.keys or self.n_kept)

    def mark(self) -> dict[str, Any]:
        """Return id, tokens and number of kept values, ready for JSON."""
        return {"id": self.id, "sweeps": list(self.sweeps), "n_kept": self.n_kept}

    @classmethod
    def of_mark(cls, mark: Mapping[str, Any] | None, **others: Any) -> Lineage:
        """Return the lineage whose `mark` was stored.

        Args:
            mark: Stored value; None if there is none. One that is no mark counts as none.
            **others: The other attributes of the lineage.
        """
        try:
            return (
                cls(str(mark["id"]), tuple(mark["sweeps"]), int(mark["n_kept"]), **others)
                if mark
                else cls(**others)
            )
        except (KeyError, TypeError, ValueError):
            return cls(**others)

    def follows(self, earlier: Lineage) -> bool:
        """Return True if this is the same study as ``earlier`` after another sweep has begun."""
        n_earlier = len(earlier.sweeps)
        is_longer = len(self.sweeps) > n_earlier
        return self.id == earlier.id and is_longer and self.sweeps[:n_earlier] == earlier.sweeps

    def with_sweep(self, name: str, spool: Lineage) -> Lineage:
        """Return the lineage of the study once another sweep has begun.

        Args:
            name: Name of the experiment, with which a new id begins.
            spool: Lineage of the spool, whose id a study without one takes.
        """
        longer = max(self.sweeps, spool.sweeps, key=len)
        return replace(
            self,
            id=self.id or spool.id or f"{name}-{secrets.token_hex(8)}",
            sweeps=(*longer, secrets.token_hex(4)),
        )


def check_lineage(study: Lineage | None, spool: Lineage, where: str, repair: str) -> None:
    """Check that a study is the one that the spool was written with, and lacks nothing of it.

    Args:
        study: Lineage of the study; None if the storage has no study of this name.
        spool: Lineage of the spool.
        where: The study and its storage in words, for the error message.
        repair: Command that restores the study from the spool.

    Raises:
        StoreError: If the study is gone, emptied, older than the spool, or another root's.
    """
    problem = _problem(study or Lineage(), spool)
    if problem:
        raise StoreError(
            f"{where} {problem}; put the right one back, or run '{repair}', which restores it from the spool"
        )


def _problem(study: Lineage, spool: Lineage) -> str | None:
    if spool.is_empty:
        return None
    if study.is_empty and not study.id:
        n_recorded = counted(len(spool.keys), "attempt")
        return f"is gone or was emptied, but the spool has {n_recorded} of it"
    if study.id and spool.id and study.id != spool.id:
        return f"belongs to another root: its id is {study.id}, that of the spool is {spool.id}"
    is_known = study.id or spool.sweeps
    if not is_known and study.fingerprint and spool.fingerprint and study.fingerprint != spool.fingerprint:
        return "belongs to another root: it was started with other settings than the spool"
    # A study has its mark before the spool hears of a sweep.
    if spool.sweeps and not study.id:
        return "has lost its mark, or its restoration was cut off"
    n_common = min(len(study.sweeps), len(spool.sweeps))
    if study.sweeps[:n_common] != spool.sweeps[:n_common]:
        return "belongs to another copy of this root, which sweeps have continued apart from this one"
    lacking = sorted(spool.keys - study.keys)
    if lacking:
        others = f" and {counted(len(lacking) - 1, 'other')}" if len(lacking) > 1 else ""
        return f"is older than the spool: it lacks {lacking[0].stem}{others}"
    # A value is kept in the spool first, so a crash can leave one that the study has not got yet.
    if study.id and (n_lacking := spool.n_kept - study.n_kept) > 1:
        return f"is older than the spool: it lacks the last {n_lacking} values of the confirmation"
    if edited := sorted(spool.keys & study.edited):
        return f"was changed: {edited[0].stem} is not what was recorded"
    return None
