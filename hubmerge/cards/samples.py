"""Sentence of a card on the examples of tasks that are scored on a part of their split."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.cards.markup import plain
from hubmerge.report.report import TaskReport
from hubmerge.support.text import listed


def samples_sentence(tasks: Sequence[TaskReport]) -> str:
    """Return how the examples of tasks were drawn; empty if all examples of all tasks are scored."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for task in tasks:
        sampling = task.sampling
        if sampling is not None and sampling.rule != "all":
            how = "the start of the split" if sampling.rule == "first" else f"drawn with seed {sampling.seed}"
            groups.setdefault((how, task.classes is not None and sampling.rule == "balanced"), []).append(task.name)
    parts = []
    for (how, with_classes), names in groups.items():
        balanced = ", equally many of each class as far as the split has them" if with_classes else ""
        parts.append(f"Examples of {listed([plain(name) for name in names])}: {how}{balanced}.")
    return " ".join(parts)
