"""What a card says about streams whose states were added."""

from __future__ import annotations

from hubmerge.cards.markup import code, repo_link
from hubmerge.report.inputs import CombinedPart
from hubmerge.report.report import RunReport, StepReport
from hubmerge.support.text import counted


def combined_notes(report: RunReport) -> list[str]:
    """Return a paragraph for each combination of streams, none for a stream that was merged in one run."""
    return [_note(step) for step in report.steps if step.combined]


def has_tag(report: RunReport, step: StepReport) -> bool:
    """Return True if a step can have a tag: steps that another stream merged have none in this repo."""
    return step.state_digest is not None or step.step not in report.combined_steps


def _note(step: StepReport) -> str:
    count = sum(part.steps for part in step.combined)
    places = "; ".join(f"{_place(part)} ({counted(part.steps, 'step')})" for part in step.combined)
    return (
        f"Steps {step.step - count + 1} to {step.step} were merged as {len(step.combined)} streams, whose states were "
        f"added: {places}. After the first stream, what depends on the step before is measured for the last step alone."
    )


def _place(part: CombinedPart) -> str:
    return code(part.place) if part.commit is None else repo_link(part.place, part.place, part.commit)
