"""What a card says about a step that merged several models at once."""

from __future__ import annotations

from hubmerge.cards.markup import plain
from hubmerge.report.report import RunReport
from hubmerge.support.names import step_tag
from hubmerge.support.text import counted


def joint_summary(report: RunReport, base: str, method: str) -> str:
    """Return the first sentences of the card.

    Args:
        report: the report, whose last step is joint.
        base: the base model, with a link.
        method: the method, with its source.
    """
    step, count = report.steps[-1], counted(len(report.models), "model")
    text = (
        f"This model merges {count} into one model of the same size, without training: all at once, tensor by tensor, "
        f"by hubmerge with {method}. Names, shapes, config and tokenizer are those of {base}."
    )
    if step.step > 1:
        text += (
            f" It was merged anew from all its models, not from the step before it, {step_tag(step.step - 1)}, which "
            f"merged {counted(len(report.steps[-2].inputs), 'model')}."
        )
    return text


def joint_notes(report: RunReport) -> list[str]:
    """Return the warnings of a joint step, each in a paragraph."""
    if not report.is_joint:
        return []
    return [f"Step {step.step}: {plain(text)}." for step in report.steps for text in step.warnings]
