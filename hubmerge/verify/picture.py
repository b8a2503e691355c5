"""Comparison of the picture of a card with the one that is drawn here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubmerge.support.names import PICTURE_FILE
from hubmerge.verify.finding import Finding

VISIBLE = 64
"""Difference of a color channel, of 255, from which a pixel differs visibly."""

SIMILAR_SHARE = 0.002
"""Largest share of pixels that differ visibly between two drawings of one picture."""


def compare_picture(ours: Path, theirs: Path) -> Iterator[Finding]:
    """Compare the picture of the card with the one that is drawn here; fonts and rounding may differ a little."""
    if not ours.is_file() or (theirs.is_file() and ours.read_bytes() == theirs.read_bytes()):
        if theirs.is_file() and not ours.is_file():
            yield Finding("files", "differs", f"{PICTURE_FILE} is not a file of this step")
        return
    if not theirs.is_file():
        yield Finding("files", "differs", f"{PICTURE_FILE} is missing")
    elif not is_similar_picture(ours, theirs):
        detail = (
            f"{PICTURE_FILE} is not the picture that this version draws; another version of matplotlib may explain it"
        )
        yield Finding("files", "unknown", detail)


def is_similar_picture(ours: Path, theirs: Path) -> bool:
    """Return True if two pictures have one size, and almost no pixel differs visibly."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(ours) as mine, Image.open(theirs) as other:
            if mine.size != other.size:
                return False
            pixels = [np.asarray(picture.convert("RGB"), dtype=np.int16) for picture in (mine, other)]
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
    visible = np.abs(pixels[0] - pixels[1]).max(axis=-1) > VISIBLE
    return float(visible.mean()) <= SIMILAR_SHARE
