"""Reader of YAML files as plain data, with the position of every key and value.

The data consists of mappings with text keys, lists, text, numbers, true/false and null. Duplicate keys and tags that
create objects are problems. Limits count the values of an alias at each use, so that a small file cannot expand into
a large one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merge_recipes.errors import KeyPath, Problem, RecipeFileError, format_value, key_text, nearest
from merge_recipes.secrets import check_no_secrets
from merge_recipes.yaml_nodes import MAX_DEPTH, MAX_NODES, Node, Position, compose, compose_all, syntax_error
from merge_recipes.yaml_scalars import Scalar, has_forbidden_character, resolve_plain

MAX_FILE_BYTES = 1 << 20
MAX_DOCUMENTS = 64

FUNCTION_TAG = "!function"
"""Tag with which lm-evaluation-harness runs a function of a file beside a task."""

_NO_FUNCTION = "write a template in its place, or install the function as a kind of task: see docs/methods.md#plug-ins"
_PREFIX = "tag:yaml.org,2002:"
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True)
class Marks:
    """Positions of the keys and values of a document, and the text of scalars without quotes, all by key path."""

    keys: Mapping[KeyPath, Position]
    values: Mapping[KeyPath, Position]
    plain: Mapping[KeyPath, str]

    def key(self, path: KeyPath) -> Position:
        """Return the position of a key, or of the nearest value around it."""
        return self.keys[path] if path in self.keys else self.value(path)

    def value(self, path: KeyPath) -> Position:
        """Return the position of a value, or of the nearest value around it."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1))


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data.

    Attributes:
        file: the name of the file in messages.
        text: the text of the file.
        data: the plain data.
        marks: the positions of keys and values.
        problems: mistakes that did not prevent reading.
        files: the file of each section that was included from another file.
        origins: the key paths in the file of values that were moved to other key paths.
        anchored: the top-level keys whose values have an anchor that an alias repeats, as key paths.
    """

    file: str
    text: str
    data: Any
    marks: Marks
    problems: tuple[Problem, ...]
    files: Mapping[KeyPath, str] = field(default_factory=dict)
    origins: Mapping[KeyPath, KeyPath] = field(default_factory=dict)
    anchored: frozenset[KeyPath] = frozenset()

    def problem(self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """Return a problem at the position of a value, or of its key."""
        line, column = self.marks.key(path) if at_key else self.marks.value(path)
        return Problem(message, hint, self.file_of(path), line, column, key_text(self.written_path(path)))

    def written_path(self, path: KeyPath) -> KeyPath:
        """Return the key path that a value has in the file."""
        moved = (length for length in range(len(path), 0, -1) if path[:length] in self.origins)
        length = next(moved, 0)
        return (*self.origins[path[:length]], *path[length:]) if length else path

    def file_of(self, path: KeyPath) -> str:
        """Return the file that contains a key path."""
        parts = (path[:length] for length in range(len(path), 0, -1))
        return next((self.files[part] for part in parts if part in self.files), self.file)

    def line_of(self, path: KeyPath) -> str:
        """Return the place of a value as text: `line 12`, followed by the file if it was included."""
        line, file = self.marks.value(path)[0], self.file_of(path)
        return f"line {line}" if file == self.file else f"line {line} of {file}"


def _near_files(path: Path) -> str:
    """Return the YAML files beside a missing one, for its message: a similar name, else the first ones."""
    try:
        files = sorted(one.name for one in path.parent.iterdir() if one.suffix in {".yaml", ".yml"})
    except (OSError, ValueError):
        return ""
    by_stem = {Path(name).stem: name for name in files}
    match = nearest(path.stem, by_stem)
    if match is not None:
        return f"; did you mean {by_stem[match]}?"
    return f"; its folder has {', '.join(files[:4])}{', ...' if len(files) > 4 else ''}" if files else ""


def read_text(path: Path) -> str:
    """Return the text of a recipe or a lock.

    Raises:
        RecipeFileError: the file is missing, a folder, too large, or not UTF-8.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise RecipeFileError(Problem(f"the file does not exist{_near_files(path)}", file=file)) from None
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
        problem = Problem(f"byte {error.start} is not UTF-8", "save the file as UTF-8", file, line)
        raise RecipeFileError(problem) from None


def read_document(text: str, file: str) -> Document:
    """Return the only YAML document of a text.

    Args:
        text: the YAML text.
        file: its name in messages.

    Raises:
        RecipeSyntaxError: the text is not YAML, is nested too deeply, or has too many values.
        RecipeError: the text contains an access token or a password.
    """
    check_no_secrets(text, file)
    root = compose(text, file)
    return _built(root, _Builder(file), text)


def read_documents(text: str, file: str) -> list[Document]:
    """Return the documents of a recipe's text, at least one. Empty documents beside others are left out.

    Args:
        text: the YAML text. All documents together have the limits of one.
        file: its name in messages.

    Raises:
        RecipeSyntaxError: the text is not YAML, is nested too deeply, or has too many values.
        RecipeError: the text contains an access token or a password.
    """
    check_no_secrets(text, file)
    found: list[Document] = []
    used = 0
    roots: list[Node | None] = [*compose_all(text, file, most=MAX_DOCUMENTS)]
    for root in roots or [None]:
        builder = _Builder(file, used)
        found.append(_built(root, builder, text))
        used = builder.used
    return [document for document in found if document.data is not None] or found[:1]


def _built(root: Node | None, builder: _Builder, text: str) -> Document:
    """Return a document from its tree."""
    data = None if root is None else builder.build(root, ())
    marks = Marks(builder.keys, builder.values, builder.plain)
    anchored = frozenset(builder.anchored)
    return Document(builder.file, text, data, marks, tuple(builder.problems), anchored=anchored)


class _Builder:
    """Conversion of nodes to data and positions. It collects problems and continues."""

    def __init__(self, file: str, used: int = 0) -> None:
        self.file = file
        self.used = used
        self.keys: dict[KeyPath, Position] = {}
        self.values: dict[KeyPath, Position] = {}
        self.plain: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self.anchored: set[KeyPath] = set()

    def build(self, node: Node, path: KeyPath) -> Any:
        self._count(node)
        if len(path) > MAX_DEPTH:
            raise syntax_error(self.file, node.position, f"with aliases, nested more than {MAX_DEPTH} levels deep")
        self.values[path] = node.position
        if node.is_repeated:
            self.anchored.add(path[:1])
        if node.kind == "scalar":
            if node.is_plain:
                self.plain[path] = node.text
            return self._scalar(node, path)
        if node.tag not in {None, "!", _PREFIX + ("map" if node.kind == "mapping" else "seq")}:
            self._report_tag(node, path)
        if node.kind == "mapping":
            return self._mapping(node, path)
        return [self.build(item, (*path, index)) for index, item in enumerate(node.items)]

    def _count(self, node: Node) -> None:
        self.used += 1
        if self.used > MAX_NODES:
            raise syntax_error(self.file, node.position, f"with its aliases, the file has more than {MAX_NODES} values")

    def _report(self, node: Node, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(message, hint, self.file, *node.position, key_text(path)))

    def _report_tag(self, node: Node, path: KeyPath) -> None:
        if node.tag == FUNCTION_TAG:
            message = f"the tag {FUNCTION_TAG} is not allowed: it would run {node.text[:60] or 'code'} on this machine"
            self._report(node, path, message, _NO_FUNCTION)
        else:
            self._report(node, path, f"the tag {_tag_text(node.tag)} is not allowed: it creates an object")

    def _mapping(self, node: Node, path: KeyPath) -> dict[str, Any]:
        pairs: dict[str, tuple[Node, Node]] = {}
        sources: list[Node] = []
        for key, value in node.pairs:
            if key.kind != "scalar" or has_forbidden_character(key.text):
                self._report(key, path, "expected text as a key, got a list, a mapping or a control character")
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
                self._report(source, (*path, "<<"), "expected a mapping or a list of mappings after <<")
        return [source for source in sources if source.kind == "mapping"]

    def _merge(self, sources: list[Node], pairs: dict[str, tuple[Node, Node]], path: KeyPath) -> None:
        """Add the pairs of `<<` whose keys the mapping lacks. The first source that has a key is used."""
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
            self._report(node, path, "the text contains a control character or half a surrogate pair")
            return ""
        if node.tag in {"!", _PREFIX + "str"} or (node.tag is None and not node.is_plain):
            return node.text
        try:
            value = resolve_plain(node.text)
        except ValueError as error:
            self._report(node, path, str(error), f'if it is text, put it in quotes: "{node.text[:60]}"')
            return 0
        if node.tag is None:
            return value
        types = _TYPES.get(node.tag.removeprefix(_PREFIX))
        if types is None:
            self._report_tag(node, path)
        elif not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            self._report(node, path, f"{format_value(node.text)} does not match its tag {_tag_text(node.tag)}")
        return value


def _tag_text(tag: str | None) -> str:
    if tag is None:
        return ""
    return "!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag
