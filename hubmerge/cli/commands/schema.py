"""`hubmerge schema`."""

from __future__ import annotations

import json

from hubmerge.api import recipes


def schema() -> int:
    """Print the JSON Schema of recipes, for editors."""
    print(json.dumps(recipes.schema(), indent=2))
    return 0
