"""References to models: `owner/name[/subfolder][@revision][+adapter[@revision]]`, or a local folder.

The syntax is mergekit's, with an optional folder in the repo. A local folder starts with `./`, `../`, `/` or `~`, or on
Windows with a drive or a share (`C:/models`); everything else is a repo on the Hub. A `+` or `@` in the name of a local
folder is written with a backslash.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from merge_recipes.errors import InvalidReferenceError, Problem, format_value

COMMIT_PATTERN = "[0-9a-f]{40}"
"""Regular expression of a commit on the Hub."""

DIGEST_PATTERN = "sha256:[0-9a-f]{64}"
"""Regular expression of the digest of a local folder or of a recipe."""

STAGE = "stage:"
"""Beginning of a reference to the result of another document of the recipe's file."""

MAX_REPO_CHARACTERS = 96
MAX_REFERENCE_CHARACTERS = 1024

_LOCAL_STARTS = ("./", "../", "/", "~")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]|\\\\[^\\]")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FOLDER = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._ -]*[A-Za-z0-9._-]")
_HUB_ADDRESS = re.compile(r"(?:https?://[^/]+/|hf://)(?:models/|datasets/)?(?P<repo>[^/@+?#]+(?:/[^/@+?#]+)?)")
_COLLECTION_ADDRESS = re.compile(r"https?://[^/]+/collections/(?P<slug>[^/?#]+/[^/?#]+)")
_PLUS = re.compile(r"(?<!\\)\+")
_AT = re.compile(r"(?<!\\)@")
_ESCAPED = re.compile(r"\\([+@])")
_FORM = "owner/name[/subfolder][@revision][+adapter], or a local folder that starts with ./, ../, / or ~"


def is_commit(text: str | None) -> bool:
    """Return True if a text is a commit: 40 hex digits."""
    return text is not None and re.fullmatch(COMMIT_PATTERN, text) is not None


def is_local_path(path: str) -> bool:
    """Return True if a path is a folder on this machine and not a repo on the Hub."""
    return path in {".", ".."} or path.startswith(_LOCAL_STARTS) or _DRIVE.match(path) is not None


def is_stage_path(path: str) -> bool:
    """Return True if a path is the result of another document of the recipe's file."""
    return path.startswith(STAGE)


def repo_problem(repo: str) -> str | None:
    """Return a message if a text is not a repo name (`owner/name` or `name`), else None."""
    if len(repo) > MAX_REPO_CHARACTERS:
        return f"the repo name has {len(repo)} characters: expected at most {MAX_REPO_CHARACTERS}"
    parts = repo.split("/")
    if len(parts) > 2 or not all(_PART.fullmatch(part) for part in parts):
        return f"{format_value(repo)} is not a repo name: expected owner/name with letters, digits, '-', '_' and '.'"
    if "--" in repo or ".." in repo or repo.endswith(".git"):
        return f"{format_value(repo)} is not a repo name: '--', '..' and '.git' at the end are not allowed"
    return None


def path_problem(path: str) -> Problem | None:
    """Return the mistake in the path of a repo on the Hub or of a local folder, or None."""
    if len(path) > MAX_REFERENCE_CHARACTERS:
        return Problem(f"the reference has {len(path)} characters: expected at most {MAX_REFERENCE_CHARACTERS}")
    if not path or path != path.strip() or not path.isprintable():
        return Problem(f"{format_value(path)} is not a reference: expected {_FORM}")
    if is_local_path(path):
        return None
    if is_stage_path(path):
        name = path.removeprefix(STAGE)
        return None if _STAGE_NAME.fullmatch(name) else Problem(f"{format_value(name)} is not the name of a document")
    collection = _COLLECTION_ADDRESS.match(path)
    if collection is not None:
        hint = f"write collection: {collection['slug']} (for `hubmerge init` without the key)"
        return Problem(f"{format_value(path)} is the web address of a collection", hint)
    address = _HUB_ADDRESS.match(path)
    if address is not None:
        return Problem(f"{format_value(path)} is a web address", f"write the repo only: {address['repo']}")
    if path.startswith("file:"):
        return Problem(f"{format_value(path)} is a file URL", "write the folder only, for example ./my-model")
    if path.startswith((".\\", "..\\")):
        folder = path.replace("\\", "/")
        return Problem(f"{format_value(path)} has backslashes", f"write folders with slashes: {folder}")
    message = repo_problem(path)
    return None if message is None else Problem(message, f"write {_FORM}")


def revision_problem(revision: str) -> Problem | None:
    """Return the mistake in a revision (a branch, a tag, `refs/pr/1` or a commit), or None."""
    if len(revision) > MAX_REFERENCE_CHARACTERS:
        return Problem(f"the revision has {len(revision)} characters: expected at most {MAX_REFERENCE_CHARACTERS}")
    if not revision or " " in revision or not revision.isprintable():
        return Problem(f"{format_value(revision)} is not a revision: expected a branch, a tag or a commit")
    return None


@dataclass(frozen=True)
class ModelReference:
    """A reference to a model, optionally with a LoRA adapter that is merged into it.

    Attributes:
        path: a repo on the Hub, or the local folder with the model.
        revision: a branch, tag or commit; None for the default branch.
        adapter: the LoRA adapter.
        subfolder: the folder of the model in the repo; None for the top of the repo.

    >>> reference = ModelReference.parse("openai/clip-vit-base-patch32@main+me/lora")
    >>> reference.path, reference.revision, str(reference.adapter)
    ('openai/clip-vit-base-patch32', 'main', 'me/lora')
    """

    path: str
    revision: str | None = None
    adapter: ModelReference | None = None
    written_path: str | None = field(default=None, compare=False, repr=False)
    """The path in the recipe, if `path` was made absolute."""
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
        """True for a folder on this machine, also that of the result of another document."""
        return is_local_path(self.path) or self.stage is not None

    @property
    def stage(self) -> str | None:
        """Name of the document of the recipe's file whose result the model is; None for a repo or a folder."""
        return self.path.removeprefix(STAGE) if is_stage_path(self.path) else None

    @property
    def short_name(self) -> str:
        """The last part of the path or subfolder: the default name of a stream entry."""
        return self.stage or Path((self.subfolder or self.path).rstrip("/")).name or self.path

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        r"""Parse `owner/name[/subfolder][@revision][+adapter[@revision]]` or the path of a local folder.

        >>> ModelReference.parse(r"./runs/lr\@3e-4+me/lora").path
        './runs/lr@3e-4'

        Raises:
            InvalidReferenceError: the text is not a reference.
        """
        parsed = cls.try_parse(text)
        if isinstance(parsed, Problem):
            raise InvalidReferenceError(parsed)
        return parsed

    @classmethod
    def try_parse(cls, text: str) -> ModelReference | Problem:
        """Parse a reference as `parse` does, and return the mistake if the text is not one."""
        model, *adapters = _PLUS.split(text)
        if len(adapters) > 1:
            message = f"{format_value(text)} has several adapters: expected at most one '+'"
            return Problem(message, "write a '+' in the name of a local folder as \\+")
        reference = cls._parse_one(model)
        if isinstance(reference, Problem) or not adapters:
            return reference
        adapter = cls._parse_one(adapters[0])
        return adapter if isinstance(adapter, Problem) else replace(reference, adapter=adapter)

    @classmethod
    def _parse_one(cls, text: str) -> ModelReference | Problem:
        path, *revisions = _AT.split(text, maxsplit=1)
        if is_local_path(path):
            path = _ESCAPED.sub(r"\1", path)
        path, subfolder = _split_subfolder(path)
        problem = _subfolder_problem(path, subfolder) or path_problem(path)
        if problem is not None or not revisions:
            return problem or cls(path, subfolder=subfolder)
        revision = revisions[0]
        if is_stage_path(path):
            return Problem(f"{format_value(text)}: the result of a document has no revision", f"write {path}")
        if is_local_path(path):
            hint = f"write {path}; write an '@' in the name of the folder as \\@"
            return Problem(f"{format_value(text)}: a local folder has no revision", hint)
        return revision_problem(revision) or cls(path, revision, subfolder=subfolder)

    def within(self, folder: Path) -> ModelReference:
        """Return the reference with absolute local paths; relative ones start in `folder`."""
        adapter = None if self.adapter is None else self.adapter.within(folder)
        if not is_local_path(self.path):
            return replace(self, adapter=adapter)
        return replace(
            self,
            path=absolute_path(self.path, folder),
            adapter=adapter,
            written_path=self.written_path or self.path,
        )


def _split_subfolder(path: str) -> tuple[str, str | None]:
    """Split `owner/name/a/b` into the repo and a folder in it."""
    if is_local_path(path) or "://" in path or path.count("/") < 2:
        return path, None
    owner, name, subfolder = path.split("/", 2)
    return f"{owner}/{name}", subfolder


def _subfolder_problem(repo: str, subfolder: str | None) -> Problem | None:
    """Return the mistake in a folder's name: it leads out of the repo, or has characters that are not allowed."""
    if subfolder is None:
        return None
    too_long = len(repo) + 1 + len(subfolder) > MAX_REFERENCE_CHARACTERS
    if too_long or not all(_FOLDER.fullmatch(part) for part in subfolder.split("/")):
        return Problem(f"{format_value(subfolder)} is not a folder in a repo", f"write {_FORM}")
    return None


def absolute_path(path: str, folder: Path) -> str:
    """Return a local path as an absolute path: `~` expanded, `..` removed, relative to `folder`."""
    return os.path.abspath(folder / os.path.expanduser(path))  # noqa: PTH100, PTH111 - symbolic links are kept


def checkpoint_key(reference: ModelReference) -> tuple[str, ...]:
    """Return a key that is equal for references to one checkpoint; no revision counts as `main`."""
    key = (reference.path.rstrip("/"), reference.revision or "main", reference.subfolder or "")
    return key if reference.adapter is None else (*key, *checkpoint_key(reference.adapter))
