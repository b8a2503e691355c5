"""The text of a plan on one screen: what is merged, kept and published, what it costs, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hubmerge.checkpoints.matching.names import Renaming
from hubmerge.checkpoints.planning.name_rule import DESCRIPTION
from hubmerge.plan.costs import WIDTH, cost_lines, fitted, settings_lines, wrapped
from hubmerge.plan.layout_text import missing_prefix
from hubmerge.plan.licenses import license_lines
from hubmerge.plan.remarks import remarks
from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.vocabulary_text import vocabulary_lines
from hubmerge.stream.replacements import replaced_by
from hubmerge.support.text import counted, elided, readable, short_commit

ROWS = 12
"""Rows of a table at most: of steps, or of layers."""
REMARKS = 8
"""Remarks at most; warnings come before notes where not all fit."""
VOCABULARY_LINES = 5
"""Lines about the vocabulary at most."""
REASONS = 3
"""Reasons for kept tensors; one more is shown if it is the only other one."""
LAYOUTS = 3
"""Differences of tensor names at most."""
_LEAST_MODEL = 20
_NARROW_MODEL = 12
"""Columns of a model's name at least, on a terminal with fewer columns than a plan."""


def screen_text(plan: RunPlan, columns: int | None = None) -> str:
    """Return a plan as text that fits one screen; `plan_text` has all details.

    Args:
        plan: The plan.
        columns: Width of the terminal; None for lines that are as long as their sentences.
    """
    width = min(WIDTH, columns or WIDTH)
    body = (_head(plan, width), _table(plan, width), _tensors(plan, width), _conditions(plan, width))
    lines = [*(line for part in (_stages(plan), *body, cost_lines(plan)) for line in part), *_remark_lines(plan)]
    return "\n".join(lines if columns is None else fitted(lines, width))


def _stages(plan: RunPlan) -> Iterator[str]:
    for stage in plan.stages:
        count = counted(len(stage.stream.entries), "model")
        digest = short_commit(stage.stream.chain[-1])
        yield f"stage {stage.stream.loaded.stage} ({digest}): {stage.stream.recipe.merge_method} of {count}, before"


def _head(plan: RunPlan, width: int) -> Iterator[str]:
    base = plan.stream.base
    yield f"{plan.stream.recipe.merge_method} on {base.reference} ({short_commit(base.commit)})"
    yield from settings_lines(plan, width)
    yield ""


def _table(plan: RunPlan, width: int) -> Iterator[str]:
    """Yield the steps in merge order, or the models of a joint step."""
    rows = list(_joint_rows(plan) if plan.stream.is_joint else _rows(plan))
    head = ("step", "entry", "model", "commit", "to download")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    room = width - sum(widths) + widths[2] - 2 * len(head)
    widths[2] = min(widths[2], max(room, _LEAST_MODEL if width == WIDTH else _NARROW_MODEL))
    for step, entry, model, *others in (head, *shortened(rows, ROWS)):
        cells = (entry, elided(model, widths[2]), *others)
        padded = (cell.ljust(columns) for cell, columns in zip(cells, widths[1:], strict=True))
        yield "  ".join(["", step.rjust(widths[0]), *padded]).rstrip()
    yield ""


def shortened(rows: Sequence[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    """Return the first and last rows of a table; a row that counts the others stands for them."""
    if len(rows) <= most:
        return list(rows)
    first, last = most // 2, most - most // 2 - 1
    left_out = len(rows) - first - last
    blank = ("",) * (len(rows[0]) - 2)
    return [*rows[:first], ("...", f"{left_out} more", *blank), *rows[-last:]]


def _rows(plan: RunPlan) -> Iterator[tuple[str, ...]]:
    entries, done = plan.stream.entries, plan.first_step - 1
    collapsed = done if done > 1 and plan.stream.length > ROWS else 0
    if collapsed:
        yield f"1-{done}", counted(done, "step"), "", short_commit(plan.sources[done].source.commit), "done"
    for step in range(collapsed + 1, plan.stream.length + 1):
        source, entry = plan.sources[step], entries[step - 1]
        replaced = replaced_by(entries, step)
        note = f", in place of {' and '.join(replaced)}" if replaced else ""
        note = note or (f", takes out {entry.revoke}" if entry.revoke is not None else "")
        yield (
            str(step),
            source.name,
            str(entry.model),
            short_commit(source.source.commit),
            "done" if step <= done else _size(source.missing_bytes) + note,
        )


def _joint_rows(plan: RunPlan) -> Iterator[tuple[str, ...]]:
    for step in range(1, plan.stream.length + 1):
        models = plan.stream.entries_of(step)
        if step < plan.first_step:
            yield str(step), counted(len(models), "model"), "", "", "done"
            continue
        anew = f"recomputed from all inputs, without step {step - 1}" if step > 1 else ""
        yield str(step), f"{counted(len(models), 'model')} at once", anew, "", ""
        for entry in models:
            source = plan.sources[entry]
            commit = short_commit(source.source.commit)
            yield (
                str(step),
                source.name,
                str(plan.stream.entries[entry - 1].model),
                commit,
                _size(source.missing_bytes),
            )


def _size(missing_bytes: int) -> str:
    return readable(missing_bytes) if missing_bytes else "on disk"


def _tensors(plan: RunPlan, width: int) -> Iterator[str]:
    for number, row in enumerate(plan.stacked[:ROWS]):
        yield f"{'layers' if number == 0 else '':<8} {row}"
    if len(plan.stacked) > ROWS:
        yield f"         and {len(plan.stacked) - ROWS} more (--verbose)"
    counts, millions = plan.merge.counts, plan.merge.elements / 1e6
    matrices = counted(counts["merge-matrix"], "weight matrix", "weight matrices")
    others = counted(counts["merge-other"], "other tensor")
    yield f"merged   {matrices}, {others}: {millions:.2f} million parameters"
    yield from _unusual(plan, width)
    yield f"kept     {counted(counts['keep'], 'tensor')} of the base model"
    reasons = Counter(tensor.reason for tensor in plan.merge.kept).most_common()
    shown = reasons if len(reasons) == REASONS + 1 else reasons[:REASONS]
    for reason, count in shown:
        yield f"         {count:>4}  {reason}"
    if rest := reasons[len(shown) :]:
        left = sum(count for _, count in rest)
        yield f"         {left:>4}  for {len(rest)} other reasons (--verbose)"


def _unusual(plan: RunPlan, width: int) -> Iterator[str]:
    """Yield what most merges do not have.

    These are matrices found by name, models inside that are kept, averaged statistics, checkpoints with other tensor
    names than the base model, and names that only transformers 5 loads.
    """
    merge = plan.merge
    if DESCRIPTION in merge.matrix_rule:
        yield from wrapped("", merge.matrix_rule, width=width)
    if merge.part is not None:
        yield from wrapped("", merge.part, width=width)
    if merge.averaged:
        yield f"averaged {counted(merge.counts['average'], 'tensor')}, such as {merge.averaged[0].name}"
        yield from wrapped("", merge.statistics_rule or "", width=width)
    layouts = Counter(layout for layout in plan.layouts.values() if layout != str(Renaming()))
    renamed = [f"{layout}: {counted(count, 'checkpoint')}" for layout, count in layouts.most_common()]
    for number, line in enumerate(_few(renamed, LAYOUTS)):
        yield f"{'names' if number == 0 else '':<8} {line.strip()}"
    if missing_prefix(plan.config, [spec.name for spec in plan.written.specs]):
        yield from wrapped("layout", plan.layout_written, width=width)


def _conditions(plan: RunPlan, width: int) -> Iterator[str]:
    """Yield the lines about the vocabulary, licenses and tasks."""
    yield from _few(list(vocabulary_lines(plan.vocabulary)), VOCABULARY_LINES)
    yield from license_lines(plan.licenses)
    if plan.tasks:
        known = [task.examples for task in plan.tasks if task.examples is not None]
        least = "" if len(known) == len(plan.tasks) else "at least "
        total = f"{counted(len(plan.tasks), 'task')}, {least}{counted(sum(known), 'example')}"
        text = f"{total}: {', '.join(task.short for task in plan.tasks)}"
        yield from wrapped("evaluate", text, most=2 if width == WIDTH else 4, width=width)


def _few(lines: Sequence[str], most: int) -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"           and {len(lines) - most} more (--verbose)"


def _remark_lines(plan: RunPlan) -> list[str]:
    """Return the notes and warnings; the warnings are last, where the eye is."""
    found = remarks(plan)
    warnings = [text for kind, text in found if kind == "warning"]
    notes = [(kind, text) for kind, text in found if kind != "warning"]
    room = max(1, REMARKS - min(len(warnings), REMARKS - 1))
    lines = [f"{kind:<8} {text}" for kind, text in notes[:room]]
    if len(notes) > room:
        lines.append(f"note     {len(notes) - room} more: hubmerge plan --verbose")
    lines += [f"warning  {text}" for text in warnings[:REMARKS]]
    if len(warnings) > REMARKS:
        lines.append(f"warning  {len(warnings) - REMARKS} more: hubmerge plan --verbose")
    return lines or ["problems none found"]
