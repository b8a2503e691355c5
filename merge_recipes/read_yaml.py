"""YAML text to plain data, with the position of every key and value.

Nothing is built but mappings with text keys, lists, text, numbers, true/false and null. A duplicate key is a
problem, and so is a tag that would build an object. Aliases count as often as they are used, so that a small file
cannot grow into a large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merge_recipes.errors import KeyPath, Problem, RecipeFileError, key_text, shown
from merge_recipes.yaml_nodes import MAX_DEPTH, MAX_NODES, Node, Position, compose, refused
from merge_recipes.yaml_scalars import Scalar, has_forbidden_character, resolve_plain

MAX_FILE_BYTES = 1 << 20

_PREFIX = "tag:yaml.org,2002:"
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class Marks:
    """Where every key and value of a document stands, by key path, and how scalars without quotes were written."""

    keys: Mapping[KeyPath, Position]
    values: Mapping[KeyPath, Position]
    plain: Mapping[KeyPath, str]

    def key(self, path: KeyPath) -> Position:
        """Return the position of the key, or of the nearest thing around it."""
        return self.keys[path] if path in self.keys else self.value(path)

    def value(self, path: KeyPath) -> Position:
        """Return the position of the value, or of the nearest thing around it."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1))


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data; `problems` are those that did not keep it from being read.

    `files` names the file of each part that stands in another one.
    """

    file: str
    text: str
    data: Any
    marks: Marks
    problems: tuple[Problem, ...]
    files: Mapping[KeyPath, str] = field(default_factory=dict)

    def problem(self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """Return a problem that stands at the value of `path`, or at its key."""
        line, column = self.marks.key(path) if at_key else self.marks.value(path)
        return Problem(message, hint, self.file_of(path), line, column, key_text(path))

    def file_of(self, path: KeyPath) -> str:
        """Return the file in which a key path stands."""
        parts = (path[:length] for length in range(len(path), 0, -1))
        return next((self.files[part] for part in parts if part in self.files), self.file)

    def line_of(self, path: KeyPath) -> str:
        """Return the place of a value in words: `line 12`, with its file where that is another one."""
        line, file = self.marks.value(path)[0], self.file_of(path)
        return f"line {line}" if file == self.file else f"line {line} of {file}"


def read_text(path: Path) -> str:
    """Read a recipe or a lock as text.

    Raises:
        RecipeFileError: if the file is missing, a folder, too large, or not UTF-8.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise RecipeFileError(Problem("no such file", file=file)) from None
    except IsADirectoryError:
        raise RecipeFileError(Problem("this is a folder: expected a YAML file", file=file)) from None
    except (OSError, ValueError) as error:
        raise RecipeFileError(Problem(f"the file cannot be read: {error}", file=file)) from None
    if len(content) > MAX_FILE_BYTES:
        raise RecipeFileError(Problem(f"the file is larger than {MAX_FILE_BYTES} bytes", file=file))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"byte {error.start} is not UTF-8: save the file as UTF-8"
        raise RecipeFileError(Problem(message, file=file, line=line)) from None


def read_document(text: str, file: str) -> Document:
    """Read the one YAML document of `text`; `file` names it in messages.

    Raises:
        RecipeSyntaxError: if the text is not YAML, is nested too deeply, or holds too much.
    """
    builder = _Builder(file)
    root = compose(text, file)
    data = None if root is None else builder.build(root, ())
    return Document(file, text, data, Marks(builder.keys, builder.values, builder.plain), tuple(builder.problems))


class _Builder:
    """Turns nodes into data and notes where everything stands; problems are gathered, not raised."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.keys: dict[KeyPath, Position] = {}
        self.values: dict[KeyPath, Position] = {}
        self.plain: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._used = 0

    def build(self, node: Node, path: KeyPath) -> Any:
        self._count(node)
        if len(path) > MAX_DEPTH:
            raise refused(self.file, node.position, f"aliases nest this more than {MAX_DEPTH} levels deep")
        self.values[path] = node.position
        if node.kind == "scalar":
            if node.is_plain:
                self.plain[path] = node.text
            return self._scalar(node, path)
        if node.tag not in {None, "!", _PREFIX + ("map" if node.kind == "mapping" else "seq")}:
            self._report(node, path, f"the tag {_tag_text(node.tag)} would build an object: not allowed")
        if node.kind == "mapping":
            return self._mapping(node, path)
        return [self.build(item, (*path, index)) for index, item in enumerate(node.items)]

    def _count(self, node: Node) -> None:
        self._used += 1
        if self._used > MAX_NODES:
            raise refused(self.file, node.position, f"aliases make more than {MAX_NODES} values of this file")

    def _report(self, node: Node, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(message, hint, self.file, *node.position, key_text(path)))

    def _mapping(self, node: Node, path: KeyPath) -> dict[str, Any]:
        pairs: dict[str, tuple[Node, Node]] = {}
        sources: list[Node] = []
        for key, value in node.pairs:
            if key.kind != "scalar" or has_forbidden_character(key.text):
                self._report(key, path, "a key is a word, got a list, a mapping or a control character")
            elif key.is_plain and key.text == "<<":
                sources += self._merge_sources(value, path)
            elif key.text in pairs:
                line = pairs[key.text][0].position[0]
                self._report(key, (*path, key.text), f"duplicate key, already given in line {line}")
            else:
                pairs[key.text] = (key, value)
        self._merge(sources, pairs, path)
        result = {}
        for name, (key, value) in pairs.items():
            place: KeyPath = (*path, name)
            self.keys[place] = key.position
            result[name] = self.build(value, place)
        return result

    def _merge_sources(self, value: Node, path: KeyPath) -> list[Node]:
        sources = value.items if value.kind == "list" else [value]
        for source in sources:
            if source.kind != "mapping":
                self._report(source, (*path, "<<"), "expected a mapping, or a list of mappings, to merge in")
        return [source for source in sources if source.kind == "mapping"]

    def _merge(self, sources: list[Node], pairs: dict[str, tuple[Node, Node]], path: KeyPath) -> None:
        """Add what `<<` brings where the mapping does not have it: of several sources the first one wins."""
        waiting = sources[::-1]
        while waiting:
            nested: list[Node] = []
            for key, value in waiting.pop().pairs:
                self._count(key)
                if key.is_plain and key.text == "<<":
                    nested += self._merge_sources(value, path)
                elif key.kind == "scalar":
                    pairs.setdefault(key.text, (key, value))
            waiting += nested[::-1]

    def _scalar(self, node: Node, path: KeyPath) -> Scalar:
        if has_forbidden_character(node.text):
            self._report(node, path, "the text holds a control character or half a surrogate pair")
            return ""
        if node.tag in {"!", _PREFIX + "str"} or (node.tag is None and not node.is_plain):
            return node.text
        try:
            value = resolve_plain(node.text)
        except ValueError as error:
            self._report(node, path, str(error), "if it is a name, put it in quotes")
            return 0
        if node.tag is None:
            return value
        types = _TYPES.get(node.tag.removeprefix(_PREFIX))
        if types is None:
            self._report(node, path, f"the tag {_tag_text(node.tag)} would build an object: not allowed")
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            self._report(node, path, f"{shown(node.text)} does not fit its tag {_tag_text(node.tag)}")
        return value


def _tag_text(tag: str | None) -> str:
    if tag is None:
        return ""
    return "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag
