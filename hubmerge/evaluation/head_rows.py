"""Rows of a classification head for the classes of a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.labels import letters
from hubmerge.support.text import listed


def find_head_rows(
    head: Sequence[str] | None,
    count: int,
    names: Sequence[str],
    where: str,
    *,
    owner: str = "the base model's head",
    ordered: bool = True,
) -> tuple[int, ...]:
    """Return the row of the head for every class of a task.

    Args:
        head: the names of the head's classes, None if the config has none. Then the task must have as many classes as
            the head, in the same order. Case, blanks and punctuation are ignored.
        count: the number of the head's classes.
        names: the names of the task's classes.
        where: the task and its dataset, for messages.
        owner: the name of the head in messages.
        ordered: False if the task's classes are words whose order nobody gave.

    Raises:
        EvaluationError: the head lacks a class.
    """
    if head is None:
        _check_order(count, names, where, owner=owner, ordered=ordered)
        return tuple(range(count))
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(head):
        rows.setdefault(letters(name), []).append(row)
    for name in names:
        if len(rows.get(letters(name), ())) != 1:
            number = len(rows.get(letters(name), ()))
            found = "no class" if number == 0 else f"{number} classes named"
            raise EvaluationError(
                f"{where}: {owner} has {found} {name!r}; its classes: {listed(head, 8)}",
                hint="set `class_names` to the names of the head, in the order of the dataset's labels",
            )
    return tuple(rows[letters(name)][0] for name in names)


def _check_order(count: int, names: Sequence[str], where: str, *, owner: str, ordered: bool) -> None:
    """Check that a task has the classes of a head without names, in a known order."""
    if count != len(names):
        raise EvaluationError(
            f"{where}: the task has {len(names)} classes, {owner} has {count} classes without names",
            hint="name the classes of the head in `id2label` of its model's config.json",
        )
    if not ordered:
        raise EvaluationError(
            f"{where}: the labels are words, {owner} has classes without names, and nothing gives their order",
            hint="set `class_names` of the task to the labels, in the order of the head's classes",
        )


def rows_of_head(scorer: Any, names: Sequence[str], where: str, *, ordered: bool) -> tuple[int, ...]:
    """Return the row of the head of a scorer's model for every class of a task.

    Raises:
        EvaluationError: the head lacks a class.
    """
    head, count = scorer.head_classes
    return find_head_rows(head, count, names, where, owner=scorer.owner, ordered=ordered)
