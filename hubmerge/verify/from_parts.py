"""The state of a combined stream from the published states of its parts, without merging their checkpoints again."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import HubmergeError, RunInterruptedError
from hubmerge.executor import add_states
from hubmerge.executor.state import MergeState
from hubmerge.hub.published import step_file
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.run_plan import RunPlan
from hubmerge.report.inputs import CombinedPart
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.run.step_report import write_stats
from hubmerge.stream.open_source import open_for_planning
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted, short_commit
from hubmerge.verify.finding import Finding
from hubmerge.verify.metadata import check_digests
from hubmerge.verify.published import Published, UnreadableReport, read_published
from hubmerge.verify.read_state import state_as_checkpoint
from hubmerge.verify.states import fetch_checked_state


@dataclass(frozen=True)
class FetchedParts:
    """The states of the parts of a combined stream.

    Attributes:
        step: The step that they add up to.
        states: The states, in order.
        plan: Plan of this step, or of those after it.
    """

    step: int
    states: tuple[MergeState, ...]
    plan: RunPlan

    def add(self, context: RunContext, folder: Path) -> MergeState:
        """Add the states, and write their sum into a folder."""
        title, chain = f"add {counted(len(self.states), 'state')}", context.stream.chain[self.step]
        step_input = context.step_input(self.step, context.base)
        with tensor_stage(context.progress, title, len(context.plan.merge.merged)) as advance:
            executor = context.executor(count_tensors(advance))
            state, stats = add_states(context.merge, self.states, step_input, folder, chain=chain, context=executor)
        write_stats([stats], state)
        return state

    @property
    def finding(self) -> Finding:
        """What adding them does not prove."""
        detail = (
            f"steps 1 to {self.step} were added from {counted(len(self.states), 'published state')} with the digests "
            "in the report; their checkpoints were not merged again"
        )
        return Finding("parts", "unknown", detail)


def fetch_parts(
    published: Published, stream: Stream, folder: Path, progress: Progress
) -> Generator[Finding, None, FetchedParts | None]:
    """Fetch the states of the parts at their pinned commits, and compare reports and states with their digests.

    Args:
        published: The published step.
        stream: Its stream.
        folder: Folder for the states.
        progress: Receiver of stages.

    Returns:
        The parts, or None if one is missing or is not what was combined; a finding then says so.
    """
    step = published.report.combined_steps[-1]
    states = []
    for number, part in enumerate(published.report.steps[step - 1].combined):
        with progress.stage(f"fetch the state of {part.place}"):
            state = _fetch(part, folder / str(number))
        if isinstance(state, Finding):
            yield state
            return None
        states.append(state)
    base = open_for_planning(stream.base)
    known = {step: state_as_checkpoint(states[-1], base, _tower_config(published, stream))}
    first = step if step == published.step else step + 1
    plan = plan_steps(stream, first, progress, recorded=published.report, opened=known)
    return FetchedParts(step, tuple(states), plan)


def _fetch(part: CombinedPart, folder: Path) -> MergeState | Finding:
    label = part.place if part.commit is None else f"{part.place}@{short_commit(part.commit)}"
    try:
        found = read_published(Path(part.place) if part.commit is None else part.place, part.commit)
        if isinstance(found, UnreadableReport):
            return Finding("parts", "differs", f"{label}: {found.cause}")
        if found.sealed.seal != part.report or found.state_digest(found.step) != part.state_digest:
            return Finding("parts", "differs", f"{label} is not the stream that was combined")
        checked = check_digests(found)
        if checked.verdict != "same":
            return Finding("parts", "differs", f"{label}: {checked.detail}")
        state = fetch_checked_state(found, found.step, folder)
    except RunInterruptedError:
        raise
    except HubmergeError as error:
        return Finding("parts", "unknown", f"{label} cannot be read: {error.message}")
    if state is None:
        return Finding("parts", "unknown", f"the state of {label} is not published any more")
    return state if not isinstance(state, Finding) else Finding("parts", "differs", f"{label}: {state.detail}")


def _tower_config(published: Published, stream: Stream) -> Mapping[str, Any] | None:
    publish = stream.recipe.publish
    if publish is None or publish.model == "full":
        return None
    content: dict[str, Any] = json.loads(step_file(published.files, "config.json").read_text(encoding="utf-8"))
    return content
