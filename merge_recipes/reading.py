"""Choice of the method that reads the merged model out of a state, on a task of the recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from merge_recipes.record import Record, Text
from merge_recipes.schema_types import Name, Parameters


class Reading(Record):
    """A method that reads the state, with its parameters."""

    method: Text
    """The name of the method; it reads the states of the recipe's merge_method."""
    parameters: Parameters = Field(default_factory=dict)
    """Its parameters; those that change the state are the recipe's."""


class Read(Record):
    """A choice between several read-outs of a state, made anew for every merged model."""

    choose: tuple[Reading, ...] = Field(min_length=2)
    """The read-outs; of equal scores the first one is taken."""
    on: Name
    """The name of the task on which they are scored."""
    metric: Text | None = None
    """The metric of the task that decides; by default its first one that is a number."""
    best: Literal["highest", "lowest"] | None = None
    """The best value: the highest or the lowest one; by default the lowest of perplexity, else the highest."""
