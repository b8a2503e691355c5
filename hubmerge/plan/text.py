"""The long text of a plan: all steps, tensors, files and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from hubmerge.checkpoints import MergePlan, PlannedTensor
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.plan.checked_task import tasks_text
from hubmerge.plan.costs import WIDTH, cost_lines, fitted, settings_lines
from hubmerge.plan.remarks import remarks
from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.vocabulary_text import vocabulary_lines
from hubmerge.stream.replacements import replaced_by
from hubmerge.support.text import counted, readable, short_commit

GROUPS_SHOWN = 3
"""Number of lines per reason that name kept tensors."""


def plan_text(plan: RunPlan, columns: int | None = None) -> str:
    """Return a plan as text: the steps, then one or more lines per topic, problems last.

    Args:
        plan: The plan.
        columns: Width of the terminal; None for lines that are as long as their sentences.
    """
    width = min(WIDTH, columns or WIDTH)
    evaluation = [*plan.licenses.lines(), *tasks_text(plan.tasks)]
    before = [line for stage in plan.stages for line in _stage(stage)]
    parts = (*before, *_steps(plan), *settings_lines(plan, width), *_tensors(plan), *_files(plan), *evaluation)
    lines = [*parts, *cost_lines(plan), *(f"{kind:<8} {text}" for kind, text in remarks(plan))]
    return "\n".join(lines if columns is None else fitted(lines, width))


def _stage(plan: RunPlan) -> Iterator[str]:
    """Yield the lines of a stage, which is merged before the steps."""
    yield f"stage {plan.stream.loaded.stage} ({short_commit(plan.stream.chain[-1])}), merged before"
    yield from (f"  {line}".rstrip() for line in (*_steps(plan), *_tensors(plan), *_files(plan)))
    yield ""


def _steps(plan: RunPlan) -> Iterator[str]:
    base = plan.stream.base
    yield f"{plan.stream.recipe.merge_method} on {base.reference} ({short_commit(base.commit)})"
    yield ""
    if plan.stream.is_joint:
        yield from _joint_steps(plan)
        return
    entries = plan.stream.entries
    for step, source in enumerate(plan.sources[1:], start=1):
        line = f"{source.name}  {short_commit(source.source.commit)}"
        if step < plan.first_step:
            yield f"  step {step:>2}  done   {line}"
        else:
            size = f"{readable(source.missing_bytes)} to download" if source.missing_bytes else "on disk"
            entry, replaced = entries[step - 1], replaced_by(entries, step)
            note = f", in place of {' and '.join(replaced)}" if replaced else ""
            what = "merge" if entry.revoke is None else "revoke"
            yield f"  step {step:>2}  {what}  {line}  ({size}{note})"
    yield ""


def _joint_steps(plan: RunPlan) -> Iterator[str]:
    """Yield the steps of a merge of all models at once, and the models of the one that is missing."""
    for step in range(1, plan.stream.length + 1):
        entries = plan.stream.entries_of(step)
        what = f"{counted(len(entries), 'model')} at once"
        if step < plan.first_step:
            yield f"  step {step:>2}  done   {what}"
            continue
        anew = f", recomputed from all inputs, without step {step - 1}" if step > 1 else ""
        yield f"  step {step:>2}  merge  {what}{anew}"
        for entry in entries:
            source = plan.sources[entry]
            size = f"{readable(source.missing_bytes)} to download" if source.missing_bytes else "on disk"
            yield f"                  {source.name}  {short_commit(source.source.commit)}  ({size})"
    yield ""


def _tensors(plan: RunPlan) -> Iterator[str]:
    for number, row in enumerate(plan.stacked):
        yield f"{'layers  ' if number == 0 else '        '} {row}"
    counts, largest = plan.merge.counts, plan.merge.largest
    matrices = counted(counts["merge-matrix"], "weight matrix", "weight matrices")
    yield f"merged   {matrices}, {counted(counts['merge-other'], 'other tensor')}"
    yield f"         {plan.merge.elements / 1e6:.2f} million parameters; largest tensor: {largest.name}"
    yield f"         {plan.merge.matrix_rule}"
    if plan.merge.part is not None:
        yield f"         {plan.merge.part}"
    if plan.merge.averaged:
        yield f"averaged {counted(counts['average'], 'tensor')}, such as {plan.merge.averaged[0].name}"
        yield f"         {plan.merge.statistics_rule}"
    yield f"kept     {counted(counts['keep'], 'tensor')} of the base model"
    yield from _kept(plan.merge)
    yield from (f"ignored  {line}" for line in plan.ignored)


def _files(plan: RunPlan) -> Iterator[str]:
    yield f"layout   {plan.layout_written}"
    layouts = Counter(plan.layouts.values())
    yield from (f"         {layout}: {counted(count, 'checkpoint')}" for layout, count in layouts.items())
    yield from vocabulary_lines(plan.vocabulary)


def _kept(merge: MergePlan) -> Iterator[str]:
    """Yield lines that name the kept tensors, by reason."""
    reasons: dict[str, list[PlannedTensor]] = {}
    for tensor in merge.kept:
        reasons.setdefault(tensor.reason, []).append(tensor)
    for reason, tensors in reasons.items():
        yield f"         {len(tensors):>4}  {reason}"
        kept = [tensor.name for tensor in tensors]
        own = {name.rpartition(".")[2] for name in kept}
        if len(kept) > 1 and len(own) == 1 and reason.startswith(f"{min(own)} is a buffer"):
            yield f"               *.{min(own)} ({len(kept)}: {kept[0]}, ...)"
            continue
        patterns = patterns_for(kept, {tensor.name for tensor in merge.tensors} - set(kept))
        groups: dict[str, list[str]] = {}
        for name in kept:
            groups.setdefault(next(one for one in patterns if fnmatchcase(name, one)), []).append(name)
        shown = list(groups.items())[:GROUPS_SHOWN]
        for pattern, names in shown:
            yield f"               {names[0] if len(names) == 1 else f'{pattern} ({len(names)}: {names[0]}, ...)'}"
        more = len(tensors) - sum(len(names) for _, names in shown)
        if more:
            yield f"               and {more} more (--json lists all)"
