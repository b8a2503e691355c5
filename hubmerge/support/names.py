"""Names of published files, of the state branch, of step tags and of commits."""

from __future__ import annotations

import re

from merge_recipes.references import is_commit as is_commit

REPORT_FILE = "hubmerge.json"
"""The reports of all steps so far."""

RECIPE_FILE = "hubmerge.yaml"
"""The recipe, with included tasks written in."""

LOCK_FILE = "hubmerge.lock.yaml"
"""The pinned commits of the recipe."""

CARD_FILE = "README.md"
"""The model card."""

NOTICE_FILE = "NOTICE"
"""The licenses of the inputs, and their notices."""

PICTURE_FILE = "accuracy_matrix.png"
"""The picture of the accuracy matrix that the card shows."""

PAGE_FILE = "report.html"
"""The report as a page, which the card links."""

HEADS_FOLDER = "heads"
"""The folder with the heads of the checkpoints, if the base model has none."""

MANIFEST_FILE = "state.json"
"""The manifest of a saved state."""

ACCUMULATED_FILE = "accumulated.safetensors"
"""The accumulated delta of a saved state."""

PARTS_FILE = "parts.safetensors"
"""The sketches and state parts of a saved state; states of some methods have none."""

STATE_FILES = (MANIFEST_FILE, ACCUMULATED_FILE, PARTS_FILE)
"""The files of a saved state. Its digest covers them."""

STATE_FOLDER = "state"
"""The folder of the state in an output folder. It is no file of the step."""

STATE_BRANCH = "hubmerge-state"
"""The branch of a target repo with the saved states."""

STATEMENT_FILE = "hubmerge.intoto.json"
"""The provenance statement: an in-toto Statement with a SLSA provenance."""

BOM_FILE = "hubmerge.cdx.json"
"""The bill of materials in the format of CycloneDX."""

SIGNATURE_FILE = "model.sig"
"""The signature of a step, under the name that model-signing gives it. It covers the report, which cannot list it."""

GIT_ATTRIBUTES = ".gitattributes"
"""The file that tells git which files are stored as LFS. The Hub writes it."""

STEP_FILES = frozenset({REPORT_FILE, RECIPE_FILE, LOCK_FILE, STATEMENT_FILE, BOM_FILE, PICTURE_FILE, PAGE_FILE})
"""Files at the top of a step that hubmerge writes whole; not the card, in which people may write."""

UNLISTED_FILES = frozenset({REPORT_FILE, SIGNATURE_FILE, GIT_ATTRIBUTES})
"""Files at the top of a step that the report does not list: the report itself, its signature, and what git needs."""

HISTORY_FOLDER = "history"
"""The folder with a file for each step: its whole report. Each is published once, with its step."""

_STEP_TAG = re.compile(r"step-([0-9]{2,9})")
_STEP_FOLDER = re.compile(r"\.?([^.]+)(\.(partial|outdated))?")


def step_tag(step: int) -> str:
    """Return the tag of a published step, which is also the name of its folder on disk.

    >>> step_tag(3)
    'step-03'
    """
    return f"step-{step:02d}"


def head_files(entry: str) -> tuple[str, str]:
    """Return the files with the head of an entry: its tensors, and what is known about it.

    >>> head_files("sst2")
    ('heads/sst2.safetensors', 'heads/sst2.json')
    """
    return f"{HEADS_FOLDER}/{entry}.safetensors", f"{HEADS_FOLDER}/{entry}.json"


def parse_step_tag(tag: str) -> int | None:
    """Return the step that a tag names, or None if it is not exactly a tag that `step_tag` returns.

    >>> parse_step_tag("step-03"), parse_step_tag("step-3"), parse_step_tag("v1.0")
    (3, None, None)
    """
    match = _STEP_TAG.fullmatch(tag)
    step = 0 if match is None else int(match[1])
    return step if step and step_tag(step) == tag else None


def history_file(step: int) -> str:
    """Return the path of the file with the whole report of a step.

    >>> history_file(3)
    'history/step-03.json'
    """
    return f"{HISTORY_FOLDER}/{step_tag(step)}.json"


def parse_history_file(path: str) -> int | None:
    """Return the step of a path that `history_file` returns, None for another path."""
    folder, _, name = path.partition("/")
    stem, dot, ending = name.partition(".")
    return parse_step_tag(stem) if (folder, dot, ending) == (HISTORY_FOLDER, ".", "json") else None


def is_step_folder(name: str) -> bool:
    """Return True for the name of a step's folder on disk, also of one that is being written or replaced.

    >>> is_step_folder("step-03"), is_step_folder(".step-03.partial"), is_step_folder("steps")
    (True, True, False)
    """
    match = _STEP_FOLDER.fullmatch(name)
    return match is not None and parse_step_tag(match[1]) is not None
