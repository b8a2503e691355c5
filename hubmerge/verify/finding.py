"""Finding of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["same", "differs", "unknown"]


@dataclass(frozen=True)
class Finding:
    """Result of one check: its subject, the result and what was seen.

    `unknown` means that the check was not possible.
    """

    subject: str
    verdict: Result
    detail: str
