"""Turn a matplotlib figure into a PNG, whatever characters its texts contain."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from lenet_exp.base.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG, without matplotlib's version in its metadata."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        # A name may have characters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def plain(text: str) -> str:
    """Return a text with each ``$`` escaped; matplotlib would take it for the start of a formula."""
    return printable(text).replace("$", r"\$")
