"""Check that a published step has exactly the files that belong to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hubmerge.cards import has_marks
from hubmerge.checkpoints.vocabulary.tokenizer import is_tokenizer_file
from hubmerge.checkpoints.weight_names import is_index
from hubmerge.errors import HubmergeError
from hubmerge.hub.published import read_small_file, step_has_content
from hubmerge.plan.tokenizer_files import GENERATION_FILE
from hubmerge.report.report import RunReport
from hubmerge.stream.sources import Source, files_of
from hubmerge.support.names import (
    CARD_FILE,
    GIT_ATTRIBUTES,
    NOTICE_FILE,
    SIGNATURE_FILE,
    STEP_FILES,
    UNLISTED_FILES,
    head_files,
)
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import check_kept, kept_files
from hubmerge.verify.published import Published
from merge_recipes import Recipe

METADATA_FILES = STEP_FILES | {CARD_FILE, SIGNATURE_FILE}
"""Files that hubmerge writes beside the model."""

_WRITTEN = frozenset({"config.json", "open_clip_config.json", "params.json"})
"""Configs, which a run may change."""

_ATTRIBUTES = re.compile(r"\s*(#.*)?|\S+ filter=lfs diff=lfs merge=lfs -text")
"""A line of .gitattributes that stores a file as LFS; other attributes change files when git checks them out."""


def check_files(published: Published) -> Iterator[Finding]:
    """Compare the files of the step with the list in the report, and with the files of the base model."""
    yield check_weight_files(published)
    yield from _check_attributes(published)
    if published.report.version > 1:
        yield from _check_list(published)
    yield from check_kept(published)
    yield from _check_heads(published)
    yield from _check_indexes(published)
    if published.stream is not None:
        yield from _check_base_files(published, published.stream.base)


def check_weight_files(published: Published) -> Finding:
    """Check names and digests of the published weight files."""
    expected = published.report.steps[-1].files
    found = {name: digest for name, digest in published.files.files.items() if name.endswith(".safetensors")}
    for name in sorted({*expected, *(name for name in found if "/" not in name)}):
        if expected.get(name) != found.get(name):
            return Finding("weights", "differs", f"{name} does not match the digest in the report")
    matching = "matches its digest" if len(expected) == 1 else "match their digests"
    return Finding("weights", "same", f"{counted(len(expected), 'file')} {matching} in the report")


def _check_list(published: Published) -> Iterator[Finding]:
    """Compare the files of the step with the list that its report seals."""
    listed, found = published.report.all_files, published.files
    history = published.report.history_files  # their content is compared when they are read
    kept = kept_files(published)
    different = False
    for name in sorted({*listed, *history, *found.files} - UNLISTED_FILES):
        if name not in found.files:
            problem = "is missing: the report lists it"
        elif name == CARD_FILE and has_marks(published.files.metadata_files[CARD_FILE]):
            continue  # its generated part is compared with the report
        elif name in history or name in kept:
            continue
        elif name not in listed:
            problem = "is not in the list of files in the report"
        elif not _matches(published, name):
            problem = "does not match the list of files in the report"
        else:
            continue
        different = True
        yield Finding("files", "differs", f"{name} {problem}")
    if not different:
        yield Finding("report", "same", f"its list has the published files: {counted(len(listed), 'file')}")


def heads_of(report: RunReport) -> set[str]:
    """Return the files of the heads in a report."""
    return {name for step in report.steps if step.head is not None for name in head_files(step.name)}


def _check_heads(published: Published) -> Iterator[Finding]:
    """Compare the description of each head with the digest in the report of its step."""
    for step in published.report.steps:
        if step.head is None:
            continue
        for name in head_files(step.name):
            digest = published.files.files.get(name)
            if digest is None:
                yield Finding("files", "differs", f"{name}, the head of step {step.step}, is missing")
            elif name.endswith(".json") and not step_has_content(published.files, name, step.head):
                yield Finding("files", "differs", f"{name} does not match the report of step {step.step}")


def _matches(published: Published, name: str) -> bool:
    listed = published.report.all_files[name]
    return listed.size == published.files.sizes[name] and step_has_content(published.files, name, listed.sha256)


def _check_attributes(published: Published) -> Iterator[Finding]:
    if GIT_ATTRIBUTES not in published.files.files:
        return
    odd = odd_attribute(read_small_file(published.files, GIT_ATTRIBUTES).decode("utf-8", errors="replace"))
    if odd is not None:
        detail = f"{GIT_ATTRIBUTES} changes files when git checks them out: {odd[:60]!r}"
        yield Finding("files", "differs", detail)


def odd_attribute(text: str) -> str | None:
    """Return the first line of a .gitattributes that does more than store a file as LFS, None if there is none."""
    return next((line for line in text.splitlines() if not _ATTRIBUTES.fullmatch(line)), None)


def _check_base_files(published: Published, base: Source) -> Iterator[Finding]:
    """Compare the files beside the weights with those of the base model, as the Hub lists both."""
    if base.is_local:
        return  # the recomputed step is compared with every file
    try:
        expected = _base_digests(base)
    except HubmergeError as error:
        yield Finding("files", "unknown", f"the files of the base model cannot be listed: {error.message}")
        return
    found = published.files.files
    written = {NOTICE_FILE} if published.report.base_model.licenses else set()
    written |= heads_of(published.report)
    own = {*METADATA_FILES, *written, *_WRITTEN, *published.report.steps[-1].files, GIT_ATTRIBUTES}
    own |= published.report.history_files.keys() | kept_files(published)
    if published.stream is not None and changes_tokenizer(published.stream.recipe):
        own |= set(filter(is_changed_file, {*expected, *found}))
    indexes = {name for name in {*expected, *found} if is_index(name)}
    for name in sorted({*expected, *found} - own - indexes):
        if name not in found:
            yield Finding("files", "differs", f"{name} of the base model is missing")
        elif name not in expected:
            yield Finding("files", "differs", f"{name} is not a file of this step")
        elif len(found[name]) == len(expected[name]) and found[name] != expected[name]:
            yield Finding("files", "differs", f"{name} is not the file of the base model")


def _check_indexes(published: Published) -> Iterator[Finding]:
    """Check that a step with one weight file has no index: a reader may follow it to other files."""
    if len(published.report.steps[-1].files) == 1:
        for name in sorted(name for name in published.files.files if is_index(name)):
            yield Finding("files", "differs", f"{name} is not a file of this step: it has one weight file")


def changes_tokenizer(recipe: Recipe) -> bool:
    """Return True if a recipe changes files of the base model's tokenizer. The list in the report covers them."""
    return recipe.tokenizer_options is not None or recipe.chat_template is not None


def is_changed_file(name: str) -> bool:
    """Return True for a file of the base model that a run changes together with the tokenizer."""
    return is_tokenizer_file(name) or name == GENERATION_FILE


def _base_digests(base: Source) -> dict[str, str]:
    """Return the digests of the files that a merged model takes from the base model."""
    merged = {file.path for file in files_of(base)}
    found = {base.name_of(file): file.digest for file in files_of(base, auxiliary=True) if file.path not in merged}
    return {name: digest for name, digest in found.items() if not name.startswith("hubmerge.")}
