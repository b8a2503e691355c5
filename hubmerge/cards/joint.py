"""What a card says about a step that merged several models at once."""

from __future__ import annotations

from hubmerge.cards.markup import code, plain, table
from hubmerge.report.inputs import TokenizerReport
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
    if step.layers:
        text = (
            f"This model has {counted(step.layers[-1].last + 1, 'layer')}, stacked from {count} without training, by "
            f"hubmerge with {method}. {_files(step.tokenizer, base, stacked=True)}"
        )
    else:
        text = (
            f"This model merges {count} into one model of the same size, without training: all at once, tensor by "
            f"tensor, by hubmerge with {method}. {_files(step.tokenizer, base)}"
        )
    if step.step > 1:
        text += (
            f" It was merged anew from all its models, not from the step before it, {step_tag(step.step - 1)}, which "
            f"merged {counted(len(report.steps[-2].inputs), 'model')}."
        )
    return text


def _files(tokenizer: TokenizerReport | None, base: str, *, stacked: bool = False) -> str:
    """Return where names, shapes, config and tokenizer come from."""
    if tokenizer is None and stacked:
        return f"Class, config and tokenizer are those of {base}, with another number of layers."
    if tokenizer is None:
        return f"Names, shapes, config and tokenizer are those of {base}."
    source = {
        "union": f"the tokens of all models, those of {base} first",
        "base": f"the tokens of {base}",
    }.get(tokenizer.source, f"the tokens of {code(tokenizer.source)}")
    others = f"; {counted(tokenizer.others, 'token')} not in all models" if tokenizer.others else ""
    return (
        f"Names and config are those of {base}. The vocabulary has {source}: {counted(tokenizer.tokens, 'token')} in "
        f"{counted(tokenizer.rows, 'row')}{others}."
    )


def joint_notes(report: RunReport) -> list[str]:
    """Return the warnings of a joint step, each in a paragraph."""
    if not report.is_joint:
        return []
    return [f"Step {step.step}: {plain(text)}." for step in report.steps for text in step.warnings]


def layers_table(report: RunReport) -> list[str]:
    """Return a table of the layers of a model with stacked layers, nothing for others."""
    layers = report.steps[-1].layers
    if not layers:
        return []
    rows = [
        [
            f"{row.first} to {row.last}",
            ", ".join(f"{code(one.name)} {one.first} to {one.last}" for one in row.sources),
        ]
        for row in layers
    ]
    return ["Layers, counted from 0:\n\n" + table(["layers", "from"], rows, "ll")]
