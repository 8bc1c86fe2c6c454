"""What the tests of sweeps share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _alone(environment: None) -> None:
    """Each of them has an environment of its own."""
