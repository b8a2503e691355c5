"""Description of checkpoints, streams and states, and what each entry gives to a merge."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder

if TYPE_CHECKING:
    from hubmerge.inspection.differences import Diff
    from hubmerge.inspection.entry_scores import LeaveOneOut
    from hubmerge.inspection.model import Inspection


def inspect(place: str | os.PathLike[str], *, norms: bool = False, progress: ProgressOption = "auto") -> Inspection:
    """Describe a checkpoint, a published stream or a state: layout, dtypes, parameters, norms, and what was merged.

    Of a repo only file headers and the report are read.

    Args:
        place: a folder, or a repo: `owner/name@revision`.
        norms: download the weights of a repo to compute their norm, which is always computed for folders.
        progress: see `hubmerge.run`.

    Raises:
        HubError: the repo or the revision is missing.
        CheckpointError: the files are not a model.

    Example:
        print(hubmerge.inspect("me/merged").entries)
    """
    from hubmerge.inspection.model import inspect_model

    reports = open_progress(progress)
    with interrupts.handled(), reports.stage("inspect"):
        return inspect_model(os.fspath(place), norms=norms)


def diff(one: str | os.PathLike[str], other: str | os.PathLike[str], *, progress: ProgressOption = "auto") -> Diff:
    """Compare two models tensor by tensor: checkpoints, merged models, steps, adapters, in any layout, dtype or shards.

    The values are read in pieces. Tensors of files with equal digests are equal; they are neither downloaded nor read.

    Args:
        one: the first model: a folder, or a repo: `owner/name@revision`, perhaps with `+adapter`. An adapter alone is
            applied to the base model that its config names.
        other: the second model, which is compared with the first one.
        progress: see `hubmerge.run`.

    Returns:
        The difference; `.identical`, `.tensors` and `.layers` have the details, `str()` of it is a text.

    Raises:
        HubError: a repo or a revision is missing.
        CheckpointError: the files are not a model.

    Example:
        print(hubmerge.diff("me/base", "me/merged@step-03"))
    """
    from hubmerge.inspection.compare import diff_models

    reports = open_progress(progress)
    with interrupts.handled():
        return diff_models(os.fspath(one), os.fspath(other), reports)


def leave_one_out(
    published: str | os.PathLike[str],
    *,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> LeaveOneOut:
    """Score a merge without each of its entries, with the tasks of its recipe.

    Methods whose steps are sums subtract each entry from the published state, so one checkpoint is read for each. Of a
    folder, which has no state, all checkpoints are merged once before. With other methods, such as `opcm`, the
    other entries are merged again for each entry.

    Args:
        published: the repo, with the step as revision unless it is the newest, or a folder that `run(out=...)` wrote.
        work_dir: folder for states and caches; in the user's cache folder by default.
        progress: see `hubmerge.run`.

    Returns:
        The entries, those that harm the tasks of others most first. `.flagged` has those that hurt others or lie far
        off.

    Raises:
        UsageError: all models were merged at once, or the stream has one entry.
        HubError: the repo or a checkpoint cannot be read.

    Example:
        print(hubmerge.leave_one_out("me/merged"))
    """
    from hubmerge.api.places import place_of
    from hubmerge.inspection.leave_one_out import leave_one_out as score
    from hubmerge.verify.published import open_published

    reports, place = open_progress(progress), place_of(os.fspath(published))
    work = user_cache_folder("runs") if work_dir is None else Path(work_dir)
    work.mkdir(parents=True, exist_ok=True)
    with interrupts.handled(), tempfile.TemporaryDirectory(prefix="inspect-", dir=work) as own:
        return score(open_published(*place), Path(own), reports)
