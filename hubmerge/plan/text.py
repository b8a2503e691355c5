"""The plan of a run for a person to read."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hubmerge.checkpoints import MergePlan, PlannedTensor
from hubmerge.checkpoints.matching.components import patterns_for
from hubmerge.support.text import readable, short_commit

if TYPE_CHECKING:
    from hubmerge.plan.run_plan import RunPlan

GROUPS_SHOWN = 3
"""So many lines name tensors that are kept for one reason."""


def plan_text(plan: RunPlan) -> str:
    """The plan, a line or a few for each thing there is to know."""
    counts, recipe = plan.merge.counts, plan.stream.recipe
    base = plan.stream.base
    lines = [f"{recipe.merge_method} on {base.reference} ({short_commit(base.commit)})", ""]
    for step, source in enumerate(plan.sources[1:], start=1):
        line = f"{source.name}  {short_commit(source.source.commit)}"
        if step < plan.first_step:
            lines.append(f"  step {step:>2}  done   {line}")
        else:
            size = f"{readable(source.missing_bytes)} to download" if source.missing_bytes else "here already"
            lines.append(f"  step {step:>2}  merge  {line}  ({size})")
    largest = plan.merge.largest
    lines += [
        "",
        f"merged   {counts['merge-matrix']} weight matrices, {counts['merge-other']} other tensors",
        f"         {plan.merge.elements / 1e6:.2f} million numbers, the largest tensor is {largest.name}",
        f"         {plan.merge.matrix_rule}",
        f"kept     {counts['keep']} tensors of the base model",
        *_kept(plan.merge),
    ]
    lines += [f"ignored  {line}" for line in plan.ignored]
    lines += [f"layout   {plan.layout_written}"]
    counted = Counter(plan.layouts.values())
    lines += [f"         {layout}: {count} checkpoint(s)" for layout, count in counted.items()]
    lines += [f"loading  {line}" for line in plan.loading]
    if plan.steps:
        lines += [
            f"download {readable(plan.download_bytes)}",
            f"disk     {readable(plan.work_bytes)} in the work folder",
            f"memory   about {readable(plan.memory_bytes)}",
            f"time     about {max(1, round(plan.estimated_seconds))} s of merging on one core",
        ]
    else:
        lines.append(f"missing  nothing: all {plan.stream.length} steps are done")
    if recipe.publish is not None:
        which = "every step" if recipe.publish.steps == "every" else "the last step"
        lines.append(f"publish  {which} to {recipe.publish.repo}")
    return "\n".join(lines)


def _kept(merge: MergePlan) -> list[str]:
    """Lines that tell which tensors are kept, by reason."""
    reasons: dict[str, list[PlannedTensor]] = {}
    for tensor in merge.kept:
        reasons.setdefault(tensor.reason, []).append(tensor)
    lines = []
    for reason, tensors in reasons.items():
        lines.append(f"         {len(tensors):>4}  {reason}")
        kept = [tensor.name for tensor in tensors]
        patterns = patterns_for(kept, {tensor.name for tensor in merge.tensors} - set(kept))
        groups: dict[str, list[str]] = {}
        for name in kept:
            groups.setdefault(next(one for one in patterns if fnmatchcase(name, one)), []).append(name)
        shown = list(groups.items())[:GROUPS_SHOWN]
        for pattern, names in shown:
            named = names[0] if len(names) == 1 else f"{pattern} ({len(names)}: {names[0]}, ...)"
            lines.append(f"               {named}")
        more = len(tensors) - sum(len(names) for _, names in shown)
        if more:
            lines.append(f"               and {more} more (--json lists all)")
    return lines
