"""What every picture has in common: how it becomes a PNG, whatever its texts hold."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from lenet_exp.base.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG, without a word on the version that made it."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A name may have characters that the font has not; they are shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def plain(text: str) -> str:
    """Return a text in which matplotlib finds no formula."""
    return printable(text).replace("$", r"\$")
