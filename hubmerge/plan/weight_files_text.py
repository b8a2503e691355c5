"""Lines on the weight files of the models of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hubmerge.stream.weight_choice import WeightChoice
from hubmerge.support.text import counted


def weight_files_lines(choices: Mapping[str, WeightChoice]) -> Iterator[str]:
    """Yield a line for each choice among weight files; none for models that have no others than those that are read."""
    lines: dict[str, list[str]] = {}
    for name, choice in choices.items():
        if choice.has_others:
            lines.setdefault(choice.text, []).append(name)
    for text, names in lines.items():
        yield f"{names[0] if len(names) == 1 else counted(len(names), 'model')}: {text}"
