"""`hubmerge schema`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hubmerge.api import recipes


def schema(
    *,
    events: Annotated[bool, typer.Option("--events", help="Print the schema of the lines of --json instead.")] = False,
) -> int:
    """Print the JSON Schema of recipes, for editors."""
    if events:
        from hubmerge.cli.events import events_schema

        print(json.dumps(events_schema(), indent=2))
        return 0
    print(json.dumps(recipes.schema(), indent=2))
    return 0
