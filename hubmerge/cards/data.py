"""The data that a card holds, without its wording.

The wording of a card depends on the version of hubmerge that wrote it. Two cards of one step with different wordings
hold the same data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hubmerge.cards.markup import code, plain
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from hubmerge.support.names import step_tag

CARD_FORM = 9
"""The number of the wording that this version writes; raise it with every change of the wording."""

LISTED_DATASETS = 2
"""The last form whose cards name the datasets of their scores under `datasets`, and state no licenses of inputs."""

_FORM = re.compile(r"\A---\n# hubmerge card form (\d{1,9})\n")
_INSTALL = "pip install hubmerge"
"""A line of cards of form 1. Form 2 names no package of an index, because another one may have the name."""

_FENCE = re.compile(r"(`{3,})([^`]*)")
_SEPARATOR = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"(?<!\\)\]\(([^)]*)\)|(?m:^\s*\[[^\]]*\]:\s*(\S+))|(https?://[^\s)]+)|(<[a-zA-Z/!][^>]*>)")
_TOKEN = re.compile(r"(?<!\\)\]\(([^)]*)\)|(`+)(?!`)(.+?)(?<!`)\2(?!`)|([+-]?\d[\d,.]*(?:e[+-]?\d+)?)")
_PARAMETER = re.compile(r"(`+)(?!`)([^`]+)\1 = (`+)(?!`)(.*?)(?<!`)\3(?!`)")

Row = tuple[str, ...]


@dataclass(frozen=True)
class CardData:
    """The data of one card.

    Attributes:
        metadata: the front matter.
        title: the heading.
        blocks: the fenced blocks, word for word: the code and the recipe.
        tables: numbers, links, code and names of the report, by table and row.
        links: the addresses of all links and pictures, and all HTML tags.
        parameters: the parameters of the method and their values.
        stated: the texts of the report that the card repeats: method, tag, warnings and versions.
    """

    metadata: dict[str, Any]
    title: str
    blocks: tuple[str, ...]
    tables: tuple[tuple[Row, ...], ...]
    links: frozenset[str]
    parameters: tuple[tuple[str, str], ...]
    stated: frozenset[str]


def form_comment() -> str:
    """Return the line of the front matter that names the form of a card."""
    return f"# hubmerge card form {CARD_FORM}"


def card_form(text: str) -> int:
    """Return the number of the form that a card was written in.

    Cards of hubmerge 0.1.0 name no form: theirs is 1.
    """
    found = _FORM.match(text)
    return int(found[1]) if found else 1


def front_matter(text: str) -> dict[str, Any]:
    """Return the metadata of a card, empty if there is none or it is not valid YAML."""
    _, mark, rest = text.partition("---\n")
    front, closing, _ = rest.partition("\n---")
    if not mark or not closing:
        return {}
    try:
        metadata = yaml.safe_load(front)
    except yaml.YAMLError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def license_of(text: str) -> License:
    """Return the license that a card names, without identifiers if it names none."""
    return License.of(front_matter(text))


def card_data(text: str, report: RunReport) -> CardData:
    """Return the data of a card.

    Args:
        text: the card.
        report: the report that the card was written from. It supplies the names that count as data.
    """
    body = text.split("\n---\n", 1)[-1]
    lines, blocks = _without_blocks(body)
    prose = "\n".join(line for line in lines if not line.startswith("|"))
    everything = "\n".join(lines)
    return CardData(
        metadata=front_matter(text),
        title=next((line for line in lines if line.startswith("# ")), ""),
        blocks=blocks,
        tables=tuple(_tables(lines, _names(report))),
        links=frozenset("".join(groups) for groups in _LINK.findall(everything)),
        parameters=tuple((key, value) for _, key, _, value in _PARAMETER.findall(prose)),
        stated=frozenset(
            stated for stated in _stated(report) if re.search(rf"(?<![\w.]){re.escape(stated)}(?![\w+-]|\.\d)", prose)
        ),
    )


def data_differences(expected: CardData, found: CardData) -> list[str]:
    """Return one sentence for each part in which the data of two cards differ."""
    differences = [
        f"{key} in the metadata is {_shown(found.metadata.get(key))}, expected {_shown(expected.metadata.get(key))}"
        for key in sorted({*expected.metadata, *found.metadata}, key=str)
        if expected.metadata.get(key) != found.metadata.get(key)
    ]
    if expected.title != found.title:
        differences.append(f"the title is {found.title!r}, expected {expected.title!r}")
    differences += _unequal("code block", expected.blocks, found.blocks)
    differences += _unequal("table", expected.tables, found.tables)
    differences += _unequal("parameter", expected.parameters, found.parameters)
    differences += [f"the link {link!r} is missing" for link in sorted(expected.links - found.links)]
    differences += [f"the link {link!r} does not belong there" for link in sorted(found.links - expected.links)]
    differences += [f"{stated!r} is missing" for stated in sorted(expected.stated - found.stated)]
    return differences


def _unequal(what: str, expected: Sequence[Any], found: Sequence[Any]) -> Iterator[str]:
    for number in range(1, max(len(expected), len(found)) + 1):
        pair = [parts[number - 1] if number <= len(parts) else None for parts in (expected, found)]
        if pair[0] != pair[1]:
            yield f"{what} {number} holds other values"


def _shown(value: Any) -> str:
    """Return a value of the metadata, cut to one short line."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _without_blocks(body: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the lines outside of fenced blocks, and the blocks."""
    lines: list[str] = []
    blocks: list[list[str]] = []
    fence = ""
    for line in body.splitlines():
        opening = _FENCE.fullmatch(line)
        if fence:
            blocks[-1].append(line)
            fence = "" if line == fence else fence
        elif opening:
            fence = opening[1]
            blocks.append([line])
        else:
            lines.append(line)
    return lines, tuple("\n".join(line for line in block if line != _INSTALL) for block in blocks)


def _tables(lines: Iterable[str], names: frozenset[str]) -> Iterator[tuple[Row, ...]]:
    rows: list[Row] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            row = tuple(token for cell in _SEPARATOR.split(line) for token in _tokens(cell.strip(), names))
            rows += [row] if row else []
        elif rows:
            yield tuple(rows)
            rows = []


def _tokens(cell: str, names: frozenset[str]) -> Iterator[str]:
    """Yield the data of one cell: a name of the report, or its links, code and numbers.

    Code with " = " in it is the definition of a measure, which is wording.
    """
    if cell in names:
        yield cell
        return
    for link, _, span, number in _TOKEN.findall(cell):
        if " = " not in span:
            yield link or span.strip() or number


def _names(report: RunReport) -> frozenset[str]:
    """Return the names of steps, tasks and metrics, as they stand in the cells of a table."""
    metrics = {metric for scores in _all_scores(report) for values in scores.values() for metric in values}
    names = {step.name for step in report.steps} | {model.name for model in report.models}
    names |= {task.name for task in report.tasks} | metrics
    names |= {metric for task in report.tasks for metric in task.metrics}
    return frozenset(map(plain, names))


def _all_scores(report: RunReport) -> Iterator[dict[str, Any]]:
    yield from (report.base_scores, report.own_scores)
    yield from (step.scores for step in report.steps)


def _stated(report: RunReport) -> Iterator[str]:
    """Yield the texts of the report that a card repeats outside of its tables."""
    yield code(report.merge_method)
    yield code(step_tag(report.steps[-1].step))
    yield from (f"{plain(name)} {plain(version)}" for name, version in report.versions.items())
    yield from (plain(text) for step in report.steps for text in step.warnings)
