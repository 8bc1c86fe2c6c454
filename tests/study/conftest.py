"""Both ways in which a trial is written: in Optuna's tables, and by its public methods."""

import pytest

from lenet_exp.study import rdb


@pytest.fixture(params=["tables", "methods"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The way that storages go which are opened from here on."""
    if request.param == "methods":
        monkeypatch.setattr(rdb, "KNOWN_REVISIONS", [])
    return str(request.param)
