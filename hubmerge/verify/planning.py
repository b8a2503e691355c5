"""Plan of a recomputation: of all steps, of the last one alone, or of those after the parts of a combined stream."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from hubmerge.errors import HubmergeError, MachineError, RunInterruptedError
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.run_plan import RunPlan
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from hubmerge.verify.finding import Finding
from hubmerge.verify.from_parts import FetchedParts, fetch_parts
from hubmerge.verify.published import Published


def plan_or_parts(
    published: Published, stream: Stream, folder: Path, progress: Progress, *, from_parts: bool
) -> Generator[Finding, None, tuple[RunPlan | None, FetchedParts | None]]:
    """Plan all steps, or of a combined stream those after the states of its parts, which are fetched."""
    plan, combined = None, bool(published.report.combined_steps)
    if not (combined and from_parts):
        plan = yield from _plan(published, stream, progress)
    if not combined or (plan is not None and plan.first_step == 1):
        return plan, None
    parts = yield from fetch_parts(published, stream, folder, progress)
    return (plan, None) if parts is None else (parts.plan, parts)


def _plan(published: Published, stream: Stream, progress: Progress) -> Generator[Finding, None, RunPlan | None]:
    """Plan all steps, or the last one alone if a checkpoint of an earlier one cannot be read any more."""
    step = published.step
    for first in dict.fromkeys((step,) if stream.is_joint else (1, step)):
        try:
            return plan_steps(stream, first, progress, recorded=published.report)
        except (MachineError, RunInterruptedError):
            raise
        except HubmergeError as error:
            steps = f"step {step}" if first == step else f"steps 1 to {step - 1}"
            yield Finding("recomputation", "unknown", f"{steps} cannot be recomputed: {error.message}")
    return None
