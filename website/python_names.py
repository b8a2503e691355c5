"""Reference of the Python API: one directive of mkdocstrings for each public name."""

from __future__ import annotations

import importlib

import hubmerge

_GROUPS = (
    ("Recipes", ("hubmerge.api.recipes", "hubmerge.api.proposals", "merge_recipes")),
    (
        "Plan, merge, publish",
        ("hubmerge.api.planning", "hubmerge.api.merging", "hubmerge.api.pages", "hubmerge.api.state_dicts"),
    ),
    (
        "Published streams",
        (
            "hubmerge.api.published",
            "hubmerge.api.reading",
            "hubmerge.api.combining",
            "hubmerge.api.inspection",
            "hubmerge.inspection",
            "hubmerge.verify.finding",
            "hubmerge.report",
        ),
    ),
    ("Automation", ("hubmerge.api.automation", "hubmerge.automation", "hubmerge.hub.jobs")),
    ("Tools", ("hubmerge.api.method_list", "hubmerge.api.tools")),
    ("Methods of your own", ("hubmerge.methods",)),
    ("Progress", ("hubmerge.support.progress",)),
    ("Errors", ("hubmerge.errors",)),
)


def page() -> str:
    """Return the page in Markdown, for mkdocstrings to fill.

    Raises:
        LookupError: a public name belongs to no group.
    """
    places = {name: _home(name) for name in hubmerge.__all__ if not name.startswith("__")}
    lines = [
        "# Python reference",
        "",
        "All names of `import hubmerge`. [Python API](../api.md) shows how they work together.",
        "",
    ]
    for title, modules in _GROUPS:
        names = [name for name, place in places.items() if any(_inside(place, module) for module in modules)]
        lines += [f"## {title}", ""]
        for name in names:
            lines += [f"::: {places.pop(name)}", ""]
    if places:
        raise LookupError(f"no group in website/python_names.py for {', '.join(places)}")
    return "\n".join(lines)


def _inside(place: str, module: str) -> bool:
    return place.startswith(module + ".")


def _home(name: str) -> str:
    value = getattr(hubmerge, name)
    module = importlib.import_module(value.__module__)
    return f"{module.__name__}.{name}"
