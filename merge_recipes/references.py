"""References to models: `owner/name[/subfolder][@revision][+adapter[@revision]]`, or a local folder.

The form is mergekit's; a repo may be followed by a folder in it. A local folder starts with `./`, `../`, `/` or `~`;
everything else is a repo on the Hub. A `+` or `@` in the name of a local folder has a backslash in front.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from merge_recipes.errors import InvalidReferenceError, shown

COMMIT_PATTERN = "[0-9a-f]{40}"
"""Regular expression of a commit on the Hub."""

DIGEST_PATTERN = "sha256:[0-9a-f]{64}"
"""Regular expression of a digest, as the content of local folders and recipes has it."""

MAX_REPO_CHARACTERS = 96
MAX_REFERENCE_CHARACTERS = 1024

_LOCAL_STARTS = ("./", "../", "/", "~")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_FOLDER = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._ -]*[A-Za-z0-9._-]")
_HUB_ADDRESS = re.compile(r"(?:https?://[^/]+/|hf://)(?:models/|datasets/)?(?P<repo>[^/@+?#]+(?:/[^/@+?#]+)?)")
_PLUS = re.compile(r"(?<!\\)\+")
_AT = re.compile(r"(?<!\\)@")
_ESCAPED = re.compile(r"\\([+@])")
_FORM = "owner/name[/subfolder][@revision][+adapter], or a local folder that starts with ./, ../, / or ~"


def is_commit(text: str | None) -> bool:
    """Tell whether a text is a commit: 40 hex digits."""
    return text is not None and re.fullmatch(COMMIT_PATTERN, text) is not None


def is_local_path(path: str) -> bool:
    """Tell whether `path` names a folder on this machine and not a repo on the Hub."""
    return path in {".", ".."} or path.startswith(_LOCAL_STARTS)


def repo_problem(repo: str) -> str | None:
    """Return what is wrong with `repo` as the name of a repo on the Hub (`owner/name` or `name`), or None."""
    if len(repo) > MAX_REPO_CHARACTERS:
        return f"the name of a repo has at most {MAX_REPO_CHARACTERS} characters, this one has {len(repo)}"
    parts = repo.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
        return f"{shown(repo)} is not the name of a repo: expected owner/name, of letters, digits, '-', '_' and '.'"
    if "--" in repo or ".." in repo or repo.endswith(".git"):
        return f"{shown(repo)} is not the name of a repo: '--', '..' and a final '.git' are not allowed"
    return None


def check_repo_path(path: str) -> None:
    """Check the path of a repo on the Hub, or of a local folder.

    Raises:
        InvalidReferenceError: with the form that is expected.
    """
    if len(path) > MAX_REFERENCE_CHARACTERS:
        raise InvalidReferenceError(f"a reference has at most {MAX_REFERENCE_CHARACTERS} characters")
    if not path or path != path.strip() or not path.isprintable():
        raise InvalidReferenceError(f"{shown(path)} is not a reference: expected {_FORM}")
    if is_local_path(path):
        return
    address = _HUB_ADDRESS.match(path)
    if address is not None:
        raise InvalidReferenceError(f"{shown(path)} is an address", f"write the repo alone: {address['repo']}")
    if path.startswith("file:"):
        raise InvalidReferenceError(f"{shown(path)} is an address", "write the folder alone, for example ./my-model")
    if (problem := repo_problem(path)) is not None:
        raise InvalidReferenceError(problem, f"the form is {_FORM}")


def check_revision(revision: str) -> None:
    """Check a revision: a branch, a tag, `refs/pr/1` or a commit.

    Raises:
        InvalidReferenceError: if it is empty, has blanks, or is too long.
    """
    if len(revision) > MAX_REFERENCE_CHARACTERS:
        raise InvalidReferenceError(f"a revision has at most {MAX_REFERENCE_CHARACTERS} characters")
    if not revision or " " in revision or not revision.isprintable():
        raise InvalidReferenceError(f"{shown(revision)} is not a revision: expected a branch, a tag or a commit")


@dataclass(frozen=True)
class ModelReference:
    """A model: `path` is a repo on the Hub or a local folder, `adapter` a LoRA to be merged into it.

    `subfolder` is where in the repo the model lies, None for the top; a local path names the very folder.

    >>> reference = ModelReference.parse("openai/clip-vit-base-patch32@main+me/lora")
    >>> reference.path, reference.revision, str(reference.adapter)
    ('openai/clip-vit-base-patch32', 'main', 'me/lora')
    """

    path: str
    revision: str | None = None
    adapter: ModelReference | None = None
    written_path: str | None = field(default=None, compare=False, repr=False)
    """The path as the recipe has it, where `path` was made absolute."""
    subfolder: str | None = None

    def __str__(self) -> str:
        text = self.written_path or self.path
        if self.is_local:
            text = re.sub("[+@]", r"\\\g<0>", text)
        if self.subfolder is not None:
            text += f"/{self.subfolder}"
        if self.revision is not None:
            text += f"@{self.revision}"
        return text if self.adapter is None else f"{text}+{self.adapter}"

    @property
    def is_local(self) -> bool:
        """Whether the model is a folder on this machine."""
        return is_local_path(self.path)

    @property
    def short_name(self) -> str:
        """The last part of the path or subfolder, which names a stream entry that has no name of its own."""
        return Path((self.subfolder or self.path).rstrip("/")).name or self.path

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        r"""Parse `owner/name[/subfolder][@revision][+adapter[@revision]]` or the path of a local folder.

        >>> ModelReference.parse(r"./runs/lr\@3e-4+me/lora").path
        './runs/lr@3e-4'

        Raises:
            InvalidReferenceError: with the form that is expected.
        """
        model, *adapters = _PLUS.split(text)
        if len(adapters) > 1:
            hint = "a '+' in the name of a local folder is written \\+"
            raise InvalidReferenceError(f"{shown(text)} has two adapters: expected at most one '+'", hint)
        reference = cls._parse_one(model)
        return replace(reference, adapter=cls._parse_one(adapters[0])) if adapters else reference

    @classmethod
    def _parse_one(cls, text: str) -> ModelReference:
        path, *revisions = _AT.split(text, maxsplit=1)
        if is_local_path(path):
            path = _ESCAPED.sub(r"\1", path)
        path, subfolder = _split_subfolder(path)
        check_repo_path(path)
        if not revisions:
            return cls(path, subfolder=subfolder)
        revision = revisions[0]
        if is_local_path(path):
            hint = f"write {path} alone; an '@' in the name of the folder is written \\@"
            raise InvalidReferenceError(f"{shown(text)}: a local folder has no revision", hint)
        check_revision(revision)
        return cls(path, revision, subfolder=subfolder)

    def within(self, folder: Path) -> ModelReference:
        """Return the reference with local paths made absolute, relative ones being relative to `folder`."""
        adapter = None if self.adapter is None else self.adapter.within(folder)
        if not self.is_local:
            return replace(self, adapter=adapter)
        return replace(
            self,
            path=absolute_path(self.path, folder),
            adapter=adapter,
            written_path=self.written_path or self.path,
        )


def _split_subfolder(path: str) -> tuple[str, str | None]:
    """Split `owner/name/a/b` into the repo and a folder in it.

    Raises:
        InvalidReferenceError: if the folder's name could lead out of the repo, or is not one.
    """
    if is_local_path(path) or "://" in path or path.count("/") < 2:
        return path, None
    owner, name, subfolder = path.split("/", 2)
    parts = subfolder.split("/")
    if len(path) > MAX_REFERENCE_CHARACTERS or not all(_FOLDER.fullmatch(part) for part in parts):
        raise InvalidReferenceError(f"{shown(subfolder)} is not a folder in a repo", f"the form is {_FORM}")
    return f"{owner}/{name}", subfolder


def absolute_path(path: str, folder: Path) -> str:
    """Return a local path as an absolute one: `~` expanded, `..` removed, relative to `folder`."""
    return os.path.abspath(folder / os.path.expanduser(path))  # noqa: PTH100, PTH111 - links stay as they are
