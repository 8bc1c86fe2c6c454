"""Named, independent random streams from one seed.

A stream is named by what it is for (``"init"``, ``"order", 3``), so that drawing more from one of
them, or in another order, changes no other.
"""

from __future__ import annotations

import hashlib

#: Seeds stay below 2**63, which torch, NumPy and Optuna's databases can all hold.
_BITS = 63


def derive_seed(root: int, *names: str | int) -> int:
    """Return the seed of the stream called ``names`` below ``root``.

    Args:
        root: Any integer; 0 is a seed like any other.
        names: What the stream is for, from the general to the special.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
        True
        >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 2)
        False
    """
    # repr keeps 1 and "1", and ("ab",) and ("a", "b"), apart.
    digest = hashlib.blake2b(repr((root, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _BITS)
