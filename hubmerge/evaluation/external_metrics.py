"""Permission to run metrics from outside of this package, which are code.

A recipe cannot give it: the person who starts a run does, in an environment variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hubmerge.errors import EvaluationError

ALLOWED_VARIABLE = "HUBMERGE_TRUSTED_METRICS"
"""Environment variable with the names of allowed metrics, separated by commas."""

_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_-]+")


def check_external_metrics(names: Iterable[str]) -> None:
    """Refuse metrics of a Space or a script that the environment does not allow.

    A name without an owner is a metric that the makers of the `evaluate` library keep on the Hub; it is allowed.

    Raises:
        EvaluationError: a metric is not allowed.
    """
    allowed = {name.strip() for name in os.environ.get(ALLOWED_VARIABLE, "").split(",")}
    for name in names:
        if name not in allowed and (not _LIBRARY_NAME.fullmatch(name) or Path(name).exists()):
            raise EvaluationError(
                f"metric {name!r} is code that would run on this machine",
                hint=f"read the code first; to allow it, run `export {ALLOWED_VARIABLE}={name}`",
            )
