"""What the tests of sweeps share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of data sets for this module, and nothing of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENET_EXP_DATA", str(tmp_path_factory.mktemp("data")))
        for name in ("LENET_EXP_ROOT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield
