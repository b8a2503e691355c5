"""Results of a benchmark as lines of JSON: an interrupted benchmark continues after the last line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]


def read(results: Path) -> list[Line]:
    """Return the lines of a file, none if there is no file."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def append(results: Path, line: Line) -> None:
    """Add a line to a file."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
