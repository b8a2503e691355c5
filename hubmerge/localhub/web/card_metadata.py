"""Metadata of cards as HTML: a table with links to models and data sets, and a table of scores."""

from __future__ import annotations

import re
from typing import Any

from hubmerge.localhub.web.markup import Html, link, table, tag

LINKED = {"base_model": "/", "datasets": "/datasets/"}
"""Keys whose values are repos, and the start of their addresses."""
SCORES_LIMIT = 200
"""Number of scores that a page shows."""

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def metadata_table(card: dict[str, Any]) -> Html:
    """Return a table of a card's metadata, without nested fields."""
    rows = []
    for name, value in card.items():
        values = value if isinstance(value, list) else [value]
        if values and not any(isinstance(item, (dict, list)) or item is None for item in values):
            rows.append([tag("th", name, scope="row"), tag("td", *_linked(name, list(map(str, values))))])
    return table(rows, class_="metadata") if rows else Html()


def _linked(key: str, values: list[str]) -> list[str]:
    parts: list[str] = []
    for value in values:
        is_repo = key in LINKED and _REPO.fullmatch(value)
        parts += [", ", link(LINKED[key] + value, value) if is_repo else value]
    return parts[1:]


def score_table(card: dict[str, Any]) -> Html:
    """Return a table of the scores in a card's `model-index`, nothing if there are none."""
    rows = [
        [tag("td", _text(task, "name", "type")), tag("td", _text(dataset, "name", "type")), *_score(metric)]
        for entry in _dicts(card.get("model-index"))
        for result in _dicts(entry.get("results"))
        for task, dataset in [(result.get("task"), result.get("dataset"))]
        for metric in _dicts(result.get("metrics"))
    ]
    if not rows:
        return Html()
    head = [tag("th", title, scope="col") for title in ("task", "data set", "metric", "value")]
    shown = table([head, *rows[:SCORES_LIMIT]], class_="scores")
    more = len(rows) - SCORES_LIMIT
    parts = [tag("h2", "Evaluation results"), tag("div", shown, class_="wide", tabindex="0")]
    return Html("".join([*parts, tag("p", f"{more:,} more are in the card.", class_="soft") if more > 0 else ""]))


def _score(metric: dict[str, Any]) -> list[Html]:
    value = metric.get("value")
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    return [tag("td", _text(metric, "name", "type")), tag("td", shown, class_="number")]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object, *keys: str) -> str:
    found = [value[key] for key in keys if value.get(key)] if isinstance(value, dict) else []
    return str(found[0]) if found else ""
