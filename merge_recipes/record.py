"""Base class of the sections of recipes and locks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty."""


class Record(BaseModel):
    """A section of a recipe or a lock: frozen, without unknown keys, values not converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
