"""YAML text of a recipe that is a dict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from hubmerge.errors import UsageError


def yaml_text(recipe: Mapping[str, Any]) -> str:
    """Return a dict as the YAML text of a recipe; text is quoted where YAML would read another type."""
    import yaml

    from merge_recipes.yaml_scalars import resolve_plain

    class Dumper(yaml.SafeDumper):
        pass

    def represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        try:
            plain = value.isascii() and resolve_plain(value) == value
        except ValueError:
            plain = False
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, represent_text)
    try:
        values = json.loads(json.dumps(dict(recipe), default=os.fspath, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the recipe holds a value that YAML cannot hold: {error}",
            hint="use text, numbers, true/false, lists, dicts",
        ) from None
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True)
