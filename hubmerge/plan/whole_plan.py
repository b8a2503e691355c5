"""Plan of a recipe: its stages, its missing steps, its tasks and licenses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hubmerge.plan.licenses import plan_licenses
from hubmerge.plan.machine import machine_warnings
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.preflight import check_before_merge, resolve_checked
from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.signing import checked_signer
from hubmerge.plan.stage_headers import planned_stages
from hubmerge.report.report import RunReport
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from merge_recipes import LoadedRecipe


def plan_run(loaded: LoadedRecipe, progress: Progress) -> RunPlan:
    """Resolve a recipe and plan the steps that are not published yet.

    Args:
        loaded: The recipe.
        progress: Receiver of stages.

    Raises:
        HubmergeError: A source or the target repo cannot be used, a checkpoint does not fit the base model, or tasks
            do not fit their datasets.
    """
    with progress.stage("resolve commits"):
        stream = resolve_checked(loaded, PinnedCommits.gather(loaded))
    published = stream.published_report()
    first = len(published.steps) + 1 if published is not None else 1
    with planned_stages(stream, progress) as (stream, stages):
        planned = replace(_plan_missing(stream, first, published, progress), stages=stages)
    return replace(planned, warnings=(*planned.warnings, *machine_warnings(planned)))


def _plan_missing(stream: Stream, first: int, published: RunReport | None, progress: Progress) -> RunPlan:
    """Plan the steps from `first` on, which may be none."""
    plan = partial(plan_steps, stream, first, progress, recorded=published)
    if first <= stream.length:
        checked_signer(stream.loaded)
        read_licenses = partial(plan_licenses, stream, published)
        checked = check_before_merge(stream, progress, plan, read_licenses, recorded=published, needs_token=False)
        planned = plan()
        notes = (*planned.notes, *checked.kept.notes)
        warnings = (*planned.warnings, *checked.warnings)
        return replace(planned, tasks=checked.tasks, licenses=checked.licenses, notes=notes, warnings=warnings)
    with progress.stage("read licenses"):
        licenses = plan_licenses(stream, published, refuse=False)
    return replace(plan(), licenses=licenses)
