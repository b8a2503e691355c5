"""Sections of a card on parts that are not merged: heads of the checkpoints, and modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.cards.markup import block, code, plain, table
from hubmerge.support.names import head_files
from hubmerge.support.text import listed

_LABELS_SHOWN = 6
_HEADS = (
    "The checkpoints have heads that the base model does not have. Heads are not merged: each one is published as its "
    "checkpoint has it, and is used with the merged body."
)


@dataclass(frozen=True)
class HeadFacts:
    """Facts about the head of a checkpoint.

    Attributes:
        entry: the name of the entry.
        architecture: the class of the model with the head; None if transformers does not have it.
        labels: the names of its classes, empty if unknown.
        problem_type: the kind of problem, None if unknown.
    """

    entry: str
    architecture: str | None
    labels: tuple[str, ...] = ()
    problem_type: str | None = None


@dataclass(frozen=True)
class ModuleFacts:
    """Facts about a module of sentence-transformers.

    Attributes:
        kind: its class.
        path: its folder; empty for the merged model itself.
        settings: its settings in words, empty if there are none to show.
        has_weights: True if its folder has weights, which are the base model's.
    """

    kind: str
    path: str
    settings: str = ""
    has_weights: bool = False


def heads_text(heads: Sequence[HeadFacts], repo: str | None, tag: str) -> list[str]:
    """Return the section on heads; nothing if there are none."""
    if not heads:
        return []
    rows = [
        [
            plain(head.entry),
            code(head.architecture) if head.architecture else "",
            plain(listed(head.labels, _LABELS_SHOWN)),
            plain(head.problem_type or ""),
            code(head_files(head.entry)[0]),
        ]
        for head in heads
    ]
    where = f'"{repo}", "{heads[0].entry}", revision="{tag}"' if repo else f'"path/to/this/folder", "{heads[0].entry}"'
    return [
        "## Heads",
        _HEADS,
        table(["checkpoint", "class", "labels", "problem", "file"], rows, "lllll"),
        block("\n".join(["import hubmerge", "", f"model = hubmerge.load_head({where})"]), "python"),
    ]


def modules_text(modules: Sequence[ModuleFacts]) -> list[str]:
    """Return a sentence on the modules of sentence-transformers; nothing if there are none."""
    if not modules:
        return []
    described = []
    for module in modules:
        facts = [plain(module.settings)] if module.settings else []
        if not module.path:
            facts.append("merged")
        elif module.has_weights:
            facts.append(f"weights in {code(module.path)} are the base model's and not merged")
        described.append(f"{code(module.kind)} ({', '.join(facts)})" if facts else code(module.kind))
    return [f"Modules, in order: {', '.join(described)}."]
