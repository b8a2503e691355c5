"""Metrics are code: which of them may run. A recipe cannot grant that to itself, only who starts the run can."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hubmerge.errors import EvaluationError

TRUSTED_VARIABLE = "HUBMERGE_TRUSTED_METRICS"
_OF_THE_LIBRARY = re.compile(r"[A-Za-z0-9_-]+")


def check_metrics(names: Iterable[str]) -> None:
    """Refuse metrics that would run code of just anybody: names of a Space or of a script, unless they are trusted.

    A name without an owner stands for a metric that the makers of the `evaluate` library keep on the Hub.

    Raises:
        EvaluationError: naming the metric.
    """
    trusted = {name.strip() for name in os.environ.get(TRUSTED_VARIABLE, "").split(",")}
    for name in names:
        if name not in trusted and (not _OF_THE_LIBRARY.fullmatch(name) or Path(name).exists()):
            raise EvaluationError(
                f"metric {name!r} is code that would run on this machine",
                hint=f"read it; if you trust it, set {TRUSTED_VARIABLE}={name}",
            )
