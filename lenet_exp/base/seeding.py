"""Named, independent random streams from one seed.

Each stream is named after its purpose (``"init"``, or ``"order", 3``) and has a seed of its own, so drawing
more numbers from one stream does not change any other.
"""

from __future__ import annotations

import hashlib

#: Seeds are below 2**63, so that torch, NumPy and Optuna's databases can all store them.
_BITS = 63


def derive_seed(root: int, *names: str | int) -> int:
    """Return the seed of the random stream called ``names``, derived from the seed ``root``.

    Args:
        root: Seed that the stream is derived from: any integer, 0 too.
        names: Purpose of the stream, from general to specific, such as ``"order", 3``.

    Returns:
        An integer in [0, 2**63).

    Example:
        >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
        True
        >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 2)
        False
    """
    # repr tells 1 from "1", and ("ab",) from ("a", "b").
    digest = hashlib.blake2b(repr((root, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _BITS)
