"""Recomputation of a published step.

The step starts from the published state of the step before it. OPCM multiplies a rounding difference by about five at
every step, so that a chain computed from the sources alone would prove nothing after a dozen steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.checkpoints import Checkpoint
from hubmerge.executor.state import MergeState
from hubmerge.plan.plan_run import plan_steps
from hubmerge.report.report import RunReport
from hubmerge.run.finish_stage import FinishStage
from hubmerge.run.merge_stage import MergeStage
from hubmerge.run.run_context import RunContext
from hubmerge.run.step_batch import StepBatch
from hubmerge.stream.open_source import open_source
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from hubmerge.verify.states import fetch_checked_state


@dataclass(frozen=True)
class Recomputed:
    """A recomputed step.

    Attributes:
        folder: the folder of the step: weights, auxiliary files and metadata.
        report: the report after the step.
        base: the base model.
    """

    folder: Path
    report: RunReport
    base: Checkpoint


def recompute_step(published: Published, stream: Stream, work: Path, progress: Progress) -> Recomputed | Finding:
    """Compute a published step again.

    Args:
        published: the published step.
        stream: its stream.
        work: an empty folder.
        progress: the receiver of notes and stages.

    Returns:
        The recomputed step, or a finding if its previous state is missing or differs.
    """
    step = published.step
    previous: MergeState | None = None
    if step > 1:
        fetched = fetch_checked_state(published, step - 1, work / "previous")
        if isinstance(fetched, Finding):
            return fetched
        if fetched is None:
            return Finding(
                "recomputation",
                "unknown",
                f"step {step} cannot be recomputed: the state after step {step - 1} is not published; only digests, "
                "chain and card were checked (`publish: {state: every}` in a recipe keeps every state)",
            )
        previous = fetched
    plan = plan_steps(stream, step, progress)
    base_folder = fetch_folder(stream.base, auxiliary=True)
    context = RunContext(stream, plan, base_folder, work / "cache", progress)
    batch = StepBatch(range(step, step + 1), (open_source(plan.sources[step].source),))
    batch = MergeStage(context).merge(batch, previous, work / "state")
    # Without the scores of the base model, so that they are all computed again.
    so_far = replace(published.report.until(step - 1), base_scores={})
    batch = FinishStage(context).finish(batch, so_far, work / "step")
    return Recomputed(work / "step", batch.finished_report, context.base)
