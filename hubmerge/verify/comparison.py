"""Comparison of a recomputed step with the published one: tensors, scores, statistics and files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import Checkpoint, open_checkpoint
from hubmerge.hub.published import download_published_step
from hubmerge.report.report import RunReport
from hubmerge.support.names import CARD_FILE, LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from hubmerge.verify.recomputation import Recomputed

TOLERANCE = 1e-6
"""Largest relative difference between recomputed and published values that counts as equal.

For weights it is relative to the norm of the merged delta. Another machine rounds differently, by about 1e-12 a step.
"""

IGNORED_KEYS = ("digest", "state_digest", "files", "all_files", "seal", "version", "versions", "seconds", "warnings")
"""Keys of the report that are not compared: digests differ wherever bytes differ, versions and times vary.

Files and states are compared on their own.
"""


def compare_recomputed(published: Published, recomputed: Recomputed) -> Iterator[Finding]:
    """Compare the weights, the report and all other files of a recomputed step."""
    folder = download_published_step(published.files)
    made = recomputed.folder
    names = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    names -= {RECIPE_FILE, LOCK_FILE, REPORT_FILE}
    weights = {name for name in names if name.endswith(".safetensors") and "/" not in name}
    if all(_same_bytes(made / name, folder / name) for name in weights):
        yield Finding("weights", "same", "recomputed: the same bytes")
    else:
        models = open_checkpoint(made, "recomputed"), open_checkpoint(folder, "published")
        yield compare_tensors(*models, recomputed.base)
    yield from compare_reports(published.report, recomputed.report)
    for name in sorted(names - weights - {CARD_FILE, PICTURE_FILE}):
        if not _same_bytes(made / name, folder / name):
            yield Finding("files", "differs", f"{name} is not the file of the base model")


def compare_tensors(recomputed: Checkpoint, published: Checkpoint, base: Checkpoint) -> Finding:
    """Compare two models tensor by tensor.

    The difference is the Frobenius norm over all tensors, relative to that of the recomputed model minus the base.
    """
    squares, deltas, largest, largest_name = [], [], 0.0, ""
    for name in sorted({*recomputed.tensors, *published.tensors}):
        if name not in recomputed.tensors or name not in published.tensors:
            return Finding("weights", "differs", f"tensor {name!r} is in one of the two models only")
        ours, theirs = recomputed.read(name).double(), published.read(name).double()
        if ours.shape != theirs.shape:
            shapes = f"{list(theirs.shape)}, recomputed {list(ours.shape)}"
            return Finding("weights", "differs", f"tensor {name!r} has the shape {shapes}")
        difference = float((ours - theirs).norm())
        squares.append(difference**2)
        deltas.append(float((ours - base.read(name).double()).norm()) ** 2 if name in base.tensors else 0.0)
        if difference > largest or not math.isfinite(difference):
            largest, largest_name = difference, name
    delta = math.sqrt(math.fsum(deltas))
    relative = math.sqrt(math.fsum(squares)) / delta if delta else math.inf
    detail = f"recomputed: the difference is {relative:.1e} of the merged delta"
    if relative <= TOLERANCE:
        return Finding("weights", "same", detail)
    return Finding("weights", "differs", f"{detail}, largest in {largest_name!r}")


def compare_reports(published: RunReport, recomputed: RunReport) -> Iterator[Finding]:
    """Compare the scores and the statistics of two reports."""
    paths = list(_differing_paths(published.to_dict(), recomputed.to_dict(), ""))
    scores = [path for path in paths if "scores" in path]
    others = [path for path in paths if "scores" not in path]
    number = sum(len(values) for values in recomputed.steps[-1].scores.values())
    if scores:
        yield Finding("scores", "differs", f"recomputed: {scores[0]} differs")
    else:
        are = "is" if number == 1 else "are"
        yield Finding("scores", "same", f"recomputed: {counted(number, 'score')} {are} the same")
    if others:
        yield Finding("statistics", "differs", f"recomputed: {others[0]} differs")
    else:
        yield Finding("statistics", "same", "recomputed: norms, scale and ranks are the same")


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _differing_paths(one: Any, other: Any, path: str) -> Iterator[str]:
    """Yield the key paths, such as `steps[1].scale`, at which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other} - set(IGNORED_KEYS)):
            yield from _differing_paths(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differing_paths(ours, theirs, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9):
            yield path
    elif _without_wording(one, path) != _without_wording(other, path):
        yield path


def _without_wording(value: Any, path: str) -> Any:
    """Return a value of the report; of a warning, the wording of which depends on the version, its numbers alone."""
    return re.findall(r"\d+(?:\.\d+)?", value) if ".warnings[" in path and isinstance(value, str) else value
