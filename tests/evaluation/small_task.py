"""The classes, prompts and task that the tests of this folder share."""

from __future__ import annotations

from typing import Any

from merge_recipes import Task

CLASS_NAMES = ["cat", "red bus", "tree", "old house", "sea", "moon"]
PROMPTS = ("a photo of a {}.", "a drawing of the {}", "{}")


def make_task(**keys: Any) -> Task:
    dataset = {"path": "me/things", **keys.pop("dataset", {})}
    values = {"name": "things", "kind": "zero-shot-image-classification", "prompts": PROMPTS} | keys
    return Task.model_validate({"dataset": dataset, **values})
