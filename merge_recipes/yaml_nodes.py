"""Tree of YAML nodes with positions.

PyYAML's parser supplies the events. The tree is built without recursion and with limits, so that deeply nested and
very long texts are refused early.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from merge_recipes.errors import Problem, RecipeSyntaxError, nearest

MAX_DEPTH = 32
MAX_NODES = 50_000

Position = tuple[int, int]
"""Line and column, both counted from 1."""


@dataclass(eq=False)
class Node:
    """A scalar, a list or a mapping. `tag` is None if the text has no tag."""

    kind: Literal["scalar", "list", "mapping"]
    position: Position
    tag: str | None
    text: str = ""
    is_plain: bool = False
    """True for a scalar without quotes."""
    is_repeated: bool = False
    """True if an alias repeats the node."""
    items: list[Node] = field(default_factory=list)
    """The items of a list; for a mapping, its keys and values in turn."""

    @property
    def pairs(self) -> list[tuple[Node, Node]]:
        """The keys and values of a mapping, in the order of the text."""
        return list(zip(self.items[::2], self.items[1::2], strict=True))


def syntax_error(file: str, position: Position, message: str, hint: str | None = None) -> RecipeSyntaxError:
    """Return the error for a text that cannot be read any further."""
    return RecipeSyntaxError(Problem(message, hint, file, *position))


def compose(text: str, file: str) -> Node | None:
    """Return the only document of a text as a tree, or None for an empty text.

    Args:
        text: the YAML text.
        file: its name in messages.

    Raises:
        RecipeSyntaxError: the text is not YAML, is nested too deeply, has too many values, or has several documents.
    """
    roots = compose_all(text, file, most=1)
    return roots[0] if roots else None


def compose_all(text: str, file: str, *, most: int) -> list[Node]:
    """Return the documents of a text as trees.

    Args:
        text: the YAML text.
        file: its name in messages.
        most: the largest number of documents.

    Raises:
        RecipeSyntaxError: the text is not YAML, is nested too deeply, or has too many values or documents.
    """
    composer = _Composer(file, most)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            composer.add(event)
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(error, file) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise syntax_error(file, (line, column), "control characters are not allowed in YAML") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Some conversions fail inside PyYAML, for example of an invalid \U escape or a huge %YAML version.
        raise syntax_error(file, (1, 1), f"the text is not YAML: {error}") from None
    return composer.roots


def _position(mark: Any) -> Position:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _yaml_error(error: yaml.MarkedYAMLError, file: str) -> RecipeSyntaxError:
    position = _position(error.problem_mark or error.context_mark)
    message = ", ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in message:
        return syntax_error(file, position, "tabs are not allowed as indentation", "indent with spaces")
    hint = "put text in quotes if it contains ': ' or ' #', or starts with one of @ ` % & * ! { [ > |"
    return syntax_error(file, position, f"the text is not YAML: {message}", hint)


class _Composer:
    """A tree under construction, fed with one event after another."""

    def __init__(self, file: str, most: int) -> None:
        self.file = file
        self.most = most
        self.roots: list[Node] = []
        self._open: list[Node] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._nodes = 0

    def add(self, event: Any) -> None:
        position = _position(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            self._anchors = {}
            if self._documents > self.most == 1:
                raise syntax_error(self.file, position, "a second document starts here: expected one document per file")
            if self._documents > self.most:
                raise syntax_error(self.file, position, f"the file has more than {self.most} documents")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._add_node(event, position)

    def _add_node(self, event: Any, position: Position) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise syntax_error(self.file, position, f"the file has more than {MAX_NODES} values")
        node = self._node(event, position)
        if self._open:
            self._open[-1].items.append(node)
        else:
            self.roots.append(node)
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append(node)
            if len(self._open) > MAX_DEPTH:
                raise syntax_error(self.file, position, f"nested more than {MAX_DEPTH} levels deep")

    def _node(self, event: Any, position: Position) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(str(event.anchor), self._anchors, position)
        if isinstance(event, yaml.ScalarEvent):
            node = Node("scalar", position, event.tag, event.value, is_plain=event.style is None)
        elif isinstance(event, yaml.MappingStartEvent):
            node = Node("mapping", position, event.tag)
        else:
            node = Node("list", position, event.tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, anchor: str, anchors: Mapping[str, Node], position: Position) -> Node:
        if anchor not in anchors:
            match = nearest(anchor, anchors)
            hint = (
                f"did you mean *{match}?" if match else f"write &{anchor[:60]} before the value that the alias repeats"
            )
            raise syntax_error(self.file, position, f"the alias *{anchor[:60]} has no anchor", hint)
        node = anchors[anchor]
        if node in self._open:
            raise syntax_error(self.file, position, f"the alias *{anchor[:60]} is inside its own anchor")
        node.is_repeated = True
        return node
