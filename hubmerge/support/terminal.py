"""Width of the terminal that a text is printed on."""

from __future__ import annotations

import shutil
import sys

FEWEST_COLUMNS = 40
"""Width below which texts are not fitted any more."""


def terminal_columns() -> int | None:
    """Return the columns of the terminal that the standard output is, None if it is a file or a pipe."""
    try:
        is_terminal = sys.stdout.isatty()
    except (AttributeError, ValueError):  # no output, or a closed one
        return None
    return max(FEWEST_COLUMNS, shutil.get_terminal_size().columns) if is_terminal else None
