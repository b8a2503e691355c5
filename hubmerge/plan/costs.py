"""Lines of a plan about settings, downloads, disk, memory, time and what is published."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from hubmerge.plan.durations import estimate
from hubmerge.plan.parameters_text import parameters_text
from hubmerge.plan.publication_text import publication_texts
from hubmerge.plan.run_plan import RunPlan
from hubmerge.report.reading import reading_text
from hubmerge.support.text import readable

WIDTH = 100
"""Columns of a plan at most."""

_INDENT = " " * 9


def settings_lines(plan: RunPlan, width: int = WIDTH) -> Iterator[str]:
    """Yield the lines about the parameters of the merge, and about the choice of the read-out."""
    recipe, settings = plan.stream.recipe, parameters_text(plan.stream.recipe)
    given = {*recipe.parameters, "dtype", "out_dtype"}
    chosen = [f"{name} {value}" for name, value in settings.items() if name in given or value.startswith("by ")]
    others = [f"{name} {value}" for name, value in settings.items() if f"{name} {value}" not in chosen]
    parts = [", ".join(chosen), f"defaults: {', '.join(others)}" if others else ""]
    state = "" if plan.stream.is_joint else f"state in {recipe.state_dtype}"
    if text := "; ".join(filter(None, [*parts, state])):
        yield from wrapped("with", text, width=width)
    if recipe.read is not None:
        outs = "; ".join(reading_text(one.method, dict(one.parameters)) for one in recipe.read.choose)
        yield from wrapped("read", f"by the best on {recipe.read.on} of: {outs}", most=3, width=width)


def cost_lines(plan: RunPlan) -> Iterator[str]:
    """Yield the lines about downloads, disk, memory, time and what is published."""
    if not plan.steps:
        yield f"missing  no step: all {plan.stream.length} are done"
        if plan.stream.recipe.publish is not None:
            yield f"publish  {next(publication_texts(plan))}"
        return
    yield f"download {readable(plan.download_bytes)}"
    state = "" if plan.stream.is_joint else f", the last state {readable(plan.state_bytes)} of it"
    yield f"disk     {readable(plan.work_bytes)} in the work folder{state}"
    yield f"memory   about {readable(plan.memory_bytes)}"
    for key, texts in (("time", estimate(plan).texts()), ("publish", publication_texts(plan))):
        for number, text in enumerate(texts):
            yield f"{key if number == 0 else '':<8} {text}"


def wrapped(key: str, text: str, *, most: int | None = None, width: int = WIDTH) -> Iterator[str]:
    """Yield a text with its key in lines of a plan.

    Args:
        key: the first word; later lines are indented.
        text: the text.
        most: the number of lines, None for no limit; the last line then ends with dots.
        width: the columns of a line.
    """
    yield from textwrap.wrap(
        text,
        width,
        initial_indent=f"{key:<8} ",
        subsequent_indent=_INDENT,
        max_lines=most,
        placeholder=" ...",
        break_long_words=False,
        break_on_hyphens=False,
    )


def fitted(lines: Iterable[str], width: int) -> Iterator[str]:
    """Yield the lines of a plan, with those that are longer than a width in several lines; words stay whole."""
    for line in lines:
        if len(line) <= width:
            yield line
        else:
            own = line[: len(line) - len(line.lstrip())]
            longest = max(map(len, line.split()))
            indent = own if len(_INDENT) < len(own) <= width - longest else _INDENT
            yield from textwrap.wrap(
                line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
