"""Comparison of a recomputed step with the published one: tensors, scores, statistics and files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from hubmerge.checkpoints import Checkpoint, Origin, SafetensorsReader, open_checkpoint
from hubmerge.checkpoints.formats.layout import CONFIG_FILE, read_json_object
from hubmerge.hub.published import download_published_step
from hubmerge.linalg import difference
from hubmerge.support.names import (
    CARD_FILE,
    NOTICE_FILE,
    PICTURE_FILE,
    STEP_FILES,
    UNLISTED_FILES,
)
from hubmerge.verify.files import changes_tokenizer, heads_of, is_changed_file
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import kept_files
from hubmerge.verify.picture import compare_picture
from hubmerge.verify.published import Published
from hubmerge.verify.recomputation import Recomputed
from hubmerge.verify.reports import TOLERANCE, compare_reports


def compare_recomputed(published: Published, recomputed: Recomputed) -> Iterator[Finding]:
    """Compare the weights, the report and all other files of a recomputed step."""
    folder = download_published_step(published.files)
    made = recomputed.folder
    names = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    names -= STEP_FILES - {PICTURE_FILE}
    weights = {name for name in names if name.endswith(".safetensors") and "/" not in name}
    if all(_same_bytes(made / name, folder / name) for name in weights):
        yield Finding("weights", "same", "recomputed: the same bytes")
    else:
        models = open_checkpoint(made, "recomputed"), open_checkpoint(folder, "published")
        yield compare_tensors(*models, recomputed.base)
        yield from _compare_headers(made, folder, weights)
    yield from compare_reports(published.report, recomputed.report)
    yield from compare_picture(made / PICTURE_FILE, folder / PICTURE_FILE)
    known = {*names, *UNLISTED_FILES, *STEP_FILES}
    known |= published.report.history_files.keys() | kept_files(published)
    for name in sorted(set(published.files.files) - known):
        yield Finding("files", "differs", f"{name} is not a file of this step")
    for name in sorted(names - weights - {CARD_FILE, PICTURE_FILE}):
        if not (_same_bytes(made / name, folder / name) or _same_config(made / name, folder / name)):
            computed = name == NOTICE_FILE or name in heads_of(published.report)
            computed |= published.stream is not None and (
                changes_tokenizer(published.stream.recipe) and is_changed_file(name)
            )
            what = "the recomputed one" if computed else "the file of the base model"
            yield Finding("files", "differs", f"{name} is not {what}")


def _compare_headers(made: Path, folder: Path, names: set[str]) -> Iterator[Finding]:
    """Compare the metadata in the headers of weight files, which are equal on every machine."""
    for name in sorted(names):
        if (folder / name).is_file():
            ours, theirs = (SafetensorsReader(place / name).header.metadata for place in (made, folder))
            if ours != theirs:
                yield Finding("weights", "differs", f"{name}: the metadata in its header is not the recomputed one")


def compare_tensors(recomputed: Checkpoint, published: Checkpoint, base: Checkpoint) -> Finding:
    """Compare two models tensor by tensor.

    The difference is the Frobenius norm over all tensors, relative to that of the recomputed model minus the base.
    """
    squares, deltas, largest, largest_name = [], [], 0.0, ""
    for name in sorted({*recomputed.tensors, *published.tensors}):
        if name not in recomputed.tensors or name not in published.tensors:
            return Finding("weights", "differs", f"tensor {name!r} is in one of the two models only")
        ours, theirs = recomputed.read(name).double(), published.read(name).double()
        dtypes = [model.tensors[name].dtype for model in (recomputed, published)]
        if dtypes[0] != dtypes[1]:
            detail = f"tensor {name!r} has the dtype {dtypes[1]}, recomputed {dtypes[0]}"
            return Finding("weights", "differs", detail)
        if ours.shape != theirs.shape:
            shapes = f"{list(theirs.shape)}, recomputed {list(ours.shape)}"
            return Finding("weights", "differs", f"tensor {name!r} has the shape {shapes}")
        distance = float(difference(ours, theirs).norm())
        squares.append(distance**2)
        delta = float(difference(ours, base.read(name).double()).norm()) if name in base.tensors else 0.0
        if distance and name in base.tensors and not delta:
            return Finding("weights", "differs", f"tensor {name!r} is not that of the base model, which is kept")
        deltas.append(delta**2)
        if distance > largest or not math.isfinite(distance):
            largest, largest_name = distance, name
    total, whole = math.sqrt(math.fsum(deltas)), math.sqrt(math.fsum(squares))
    relative = whole / total if total else whole and math.inf
    detail = f"recomputed: the difference is {relative:.1e} of the merged delta"
    if relative <= TOLERANCE:
        return Finding("weights", "same", detail)
    return Finding("weights", "differs", f"{detail}, largest in {largest_name!r}")


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _same_config(one: Path, other: Path) -> bool:
    """Return True if two configs have the same content: version 0.1.0 sorted the keys of every config."""
    if one.name != CONFIG_FILE or not other.is_file():
        return False
    origin = Origin(one.name)
    return read_json_object(one.read_bytes(), origin) == read_json_object(other.read_bytes(), origin)
