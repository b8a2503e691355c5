"""Table of what each entry gives to a merge, with the entries that hurt others or lie far off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from hubmerge.errors import UsageError
from hubmerge.report.outliers import cosine_outliers, norm_outliers
from hubmerge.report_page import LeftOut, LeftOutEntry
from hubmerge.support.strict_json import read_strict_json
from hubmerge.support.text import counted
from merge_recipes import Recipe, task_entries


@dataclass(frozen=True)
class EntryScore:
    """What one entry gives to a merge.

    Attributes:
        step: the step that merged it.
        name: the name of the entry.
        reference: the repo or folder.
        commit: its commit.
        task_vector_norm: the norm of its task vector.
        mean_cosine: the mean cosine of its task vector with those of the other entries.
        own: the score of the whole merge minus that of the merge without the entry, on the entry's tasks.
        others: the mean of these differences on the tasks of the others; negative if the entry hurts them.
        changes: the difference by task.
        flags: what is wrong with the entry, one text each.
    """

    step: int
    name: str
    reference: str
    commit: str
    task_vector_norm: float | None
    mean_cosine: float | None
    own: float | None
    others: float | None
    changes: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeaveOneOut:
    """The scores of a merge without each of its entries; `str()` of it is a table.

    Attributes:
        place: the repo or the folder.
        method: the merge method.
        how: how the merge without an entry was made.
        entries: one for each entry, those that harm the tasks of others most come first.
        whole: the score of the whole merge by task.
    """

    place: str
    method: str
    how: str
    entries: tuple[EntryScore, ...]
    whole: Mapping[str, float] = field(default_factory=dict)

    @property
    def flagged(self) -> tuple[EntryScore, ...]:
        """The entries that hurt others or lie far off."""
        return tuple(entry for entry in self.entries if entry.flags)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.place}: {self.method} without each of {counted(len(self.entries), 'entry', 'entries')}"]
        lines[0] += f" ({self.how})"
        rows = [("entry", "gives others", "gives own", "norm", "cosine")]
        rows += [
            (one.name, _points(one.others), _points(one.own), _number(one.task_vector_norm), _number(one.mean_cosine))
            for one in self.entries
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        if self.whole:
            lines.append("gives: score of the merge minus that of the merge without the entry, in percent points")
        else:
            lines.append("the recipe has no tasks: norms and cosines only")
        lines += [f"warning: {one.name}: {flag}" for one in self.entries for flag in one.flags]
        return "\n".join(lines)


def left_out(found: LeaveOneOut) -> LeftOut:
    """Return the entries for the page of a report."""
    entries = tuple(
        LeftOutEntry(one.name, one.others, one.own, one.task_vector_norm, one.mean_cosine, one.flags)
        for one in found.entries
    )
    return LeftOut(entries, how=found.how)


def read_leave_one_out(path: Path) -> LeaveOneOut:
    """Return the scores in the output of `hubmerge inspect --leave-one-out --json`.

    Raises:
        UsageError: the file cannot be read, or has no such scores.
    """
    hint = "write the file with `hubmerge inspect REPO --leave-one-out --json > FILE`"
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}", hint=hint, file=str(path)) from error
    except UnicodeDecodeError:
        lines = []
    for line in reversed(lines):
        try:
            values = read_strict_json(line)
            if isinstance(values, dict) and values.get("event", "leave-one-out") == "leave-one-out":
                return TypeAdapter(LeaveOneOut).validate_python(
                    {key: value for key, value in values.items() if key != "event"}
                )
        except ValueError:
            continue
    raise UsageError(f"{path} has no scores of single entries", hint=hint, file=str(path))


def with_flags(found: LeaveOneOut, examples: Mapping[str, int], recipe: Recipe) -> LeaveOneOut:
    """Return the entries sorted by what they give to the others, with flags.

    An entry is flagged if the merge without it scores better on the tasks of the others by more than chance explains,
    two standard errors of an accuracy at most, or if its norm or its cosines lie far off.

    Args:
        found: the scores.
        examples: the number of examples by task.
        recipe: the recipe with the tasks.
    """
    norms = {one.name: one.task_vector_norm for one in found.entries if one.task_vector_norm is not None}
    cosines = {one.name: one.mean_cosine for one in found.entries if one.mean_cosine is not None}
    far, odd, owners = norm_outliers(norms), cosine_outliers(cosines), task_entries(recipe)

    def flagged(one: EntryScore) -> EntryScore:
        count = sum(examples.get(task, 0) for task in one.changes if owners.get(task) != one.name)
        hurts = one.others is not None and count > 0 and one.others < -1.0 / math.sqrt(count)
        lost = f"without it the tasks of the others gain {_points(-(one.others or 0.0))} points"
        flags = [*([lost] if hurts else []), *filter(None, (far.get(one.name), odd.get(one.name)))]
        return replace(one, flags=tuple(flags))

    ordered = sorted(found.entries, key=lambda one: (one.others is None, one.others or 0.0, one.step))
    return replace(found, entries=tuple(map(flagged, ordered)))


def _points(change: float | None) -> str:
    return "-" if change is None else f"{100 * change:+.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
