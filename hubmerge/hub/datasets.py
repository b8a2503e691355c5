"""Downloads for evaluation: the rows of a dataset, and metrics that are not part of hubmerge."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import datasets
import evaluate
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from hubmerge.errors import DatasetError, EvaluationError, HubError, MachineError
from hubmerge.evaluation.casting import cast_rows
from hubmerge.evaluation.external_metrics import check_external_metrics
from hubmerge.evaluation.metrics import CLASS_METRIC_NAMES
from hubmerge.hub.explain import explain
from hubmerge.hub.failures import causes
from hubmerge.hub.fetch import remove_unfinished_downloads
from hubmerge.hub.offline import cached_files, is_offline, set_aside_damaged_files
from hubmerge.hub.prepared_rows import checked_rows
from hubmerge.hub.remote_file import snapshot_folder
from hubmerge.hub.retry import call
from hubmerge.support.redaction import without_token
from hubmerge.support.text import short_commit
from merge_recipes import DatasetReference
from merge_recipes.errors import did_you_mean, nearest
from merge_recipes.near_names import METRIC_SYNONYMS, other_name
from merge_recipes.references import is_commit

Result = TypeVar("Result")

_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def load_rows(
    dataset: DatasetReference,
    commit: str | None = None,
    *,
    cache: Path | None = None,
    sleep: Callable[[float], None] | None = None,
) -> datasets.Dataset:
    """Return all rows of the split that a task names.

    Args:
        dataset: the dataset of the task.
        commit: the commit to read; for a local folder the digest of its content, or None to skip the cache.
        cache: the folder for prepared rows; that of the datasets library by default.
        sleep: the function that waits between retries, by default `interrupts.wait`.

    Raises:
        DatasetError: the dataset, the subset or the split is missing, not accessible or not readable.
        MachineError: a download cannot be written to disk.
    """

    def load(path: str, options: dict[str, Any]) -> datasets.Dataset:
        if cache is not None:
            options = {**options, "cache_dir": str(cache)}
            if is_offline() and not dataset.is_local and is_commit(commit):
                path, options = _cached_folder(dataset.path, str(commit)), {"cache_dir": str(cache)}

        def prepare(mode: datasets.DownloadMode | None) -> datasets.Dataset:
            chosen = options if mode is None else {**options, "download_mode": mode}
            rows: datasets.Dataset = datasets.load_dataset(path, dataset.name, split=dataset.split, **chosen)
            return rows

        return checked_rows(prepare)

    return cast_rows(read_dataset(dataset, commit, load, sleep=sleep), dataset)


def _cached_folder(repo: str, commit: str) -> str:
    """Return the folder of a dataset in the Hub cache: offline, the library reads nothing but what it prepared itself.

    Raises:
        HubError: the cache has no file of the commit.
    """
    cached_files(repo, commit, kind="dataset")
    return str(snapshot_folder(repo, commit, "dataset"))


def read_dataset(
    dataset: DatasetReference,
    commit: str | None,
    read: Callable[[str, dict[str, Any]], Result],
    *,
    sleep: Callable[[float], None] | None = None,
) -> Result:
    """Read from a dataset with a function of the datasets library, with retries and errors for users.

    Args:
        dataset: the dataset of a task.
        commit: the commit to read, as for `load_rows`.
        read: the function; it gets the path of the dataset and options of the library.
        sleep: the function that waits between retries, by default `interrupts.wait`.

    Raises:
        DatasetError: the dataset, the subset or the split is missing, not accessible or not readable.
        MachineError: a download cannot be written to disk.
    """
    path, local = dataset.path, dataset.is_local
    subject = f"dataset {path}" if local or commit is None else f"dataset {path}@{short_commit(commit)}"
    place: dict[str, Any] = {} if local else {"repo": path, "commit": commit}
    if local:
        path = str(Path(path).expanduser())
    _check_folder(path, subject, local=local)
    options = _local_options(commit) if local else _hub_options(path, commit)
    try:
        return call(subject, partial(read, path, options), sleep=sleep, repo=place.get("repo"), commit=commit)
    except (MachineError, DatasetError):
        raise
    except HubError as error:
        hint = "run the recipe once while the Hub can be reached" if is_offline() else error.hint
        raise DatasetError(error.message, hint=hint, **place) from error
    except Exception as error:  # datasets raises a dozen classes, from ValueError to pyarrow's own
        raise _dataset_error(error, subject, dataset, place) from error


def _check_folder(path: str, subject: str, *, local: bool) -> None:
    """Check that a local dataset exists, and that no folder hides a dataset of the Hub."""
    exists = Path(path).is_dir()
    if local and not exists:
        raise DatasetError(f"{subject}: no folder at {path}", hint="write the path of a folder with data files")
    if exists and not local:
        raise DatasetError(
            f"{subject}: the working directory has a folder of the name {path}, which would be read instead of the Hub",
            hint=f"run in another folder, or write ./{path} to read the folder",
            repo=path,
        )


def _hub_options(repo: str, commit: str | None) -> dict[str, Any]:
    """Return options for a dataset of the Hub, after damaged files of it have been removed from the cache."""
    remove_unfinished_downloads(repo, "dataset")
    if commit is not None:
        set_aside_damaged_files(repo, commit, "dataset")
    return {"revision": commit if is_commit(commit) else None}


def _local_options(digest: str | None) -> dict[str, Any]:
    """Return options that prevent the library from reading another folder of this name from its cache.

    Its cache depends on names and settings, not on the files. Each digest gets a cache of its own; without a digest
    the cache is not used.
    """
    if digest is None:
        return {"download_mode": datasets.DownloadMode.FORCE_REDOWNLOAD}
    return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / "local" / digest.removeprefix("sha256:")[:32])}


def _dataset_error(error: Exception, subject: str, dataset: DatasetReference, place: dict[str, Any]) -> DatasetError:
    """Turn an exception of the datasets library into an error for users."""
    failure = next((link for link in causes(error) if isinstance(link, (HfHubHTTPError, OfflineModeIsEnabled))), None)
    if failure is not None:
        explained = explain(failure, subject, **place)
        return DatasetError(explained.message, hint=explained.hint, **place)
    text = without_token(str(error).strip() or type(error).__name__)
    if (wrong := _config_problem(error, text, dataset)) is not None:
        key, cause, hint = wrong
    else:
        key, (cause, hint) = "path", _access_problem(error, text) or _other_problem(error, text)
    return DatasetError(f"{subject}: {cause}", hint=hint, key=key, **place)


def _config_problem(error: Exception, text: str, dataset: DatasetReference) -> tuple[str, str, str] | None:
    """Return the key, the cause and the hint if the subset or the split is wrong."""
    if not isinstance(error, ValueError):
        return None
    if "BuilderConfig" in text:
        names = _quoted(text.split("Available:")[-1])
        cause = f"no subset {dataset.name!r}{did_you_mean(dataset.name or '', names)}"
        return "name", cause, f"set `dataset: {{name: ...}}` to one of {', '.join(names)}"
    if "Config name is missing" in text:
        names = _quoted(text.split("Please pick one among the available configs:")[-1].split("\n")[0])
        cause = f"the dataset has several subsets and the recipe names none; expected one of: {', '.join(names)}"
        return "name", cause, f"set `dataset: {{name: {names[0] if names else '...'}}}`"
    if "nknown split" in text:
        names = _quoted(text.split("Should be one of")[-1])
        cause = f"no split {dataset.split!r}{did_you_mean(dataset.split, names)}"
        return "split", cause, f"set `dataset: {{split: ...}}` to one of {', '.join(names)}"
    if "nstruction" in text or "slice" in text or "is out of range" in text:
        return "split", f"split {dataset.split!r}: {text.splitlines()[0]}", "write a split such as test[:50%]"
    return None


def _quoted(text: str) -> list[str]:
    """Return the words in quotes, or the words between commas if there are none in quotes."""
    return [one or other for one, other in _QUOTED.findall(text)] or [word.strip(" .[]") for word in text.split(",")]


def _access_problem(error: Exception, text: str) -> tuple[str, str] | None:
    """Return the cause and the hint if there is no dataset, or none that can be read."""
    if isinstance(error, DataFilesNotFoundError):
        return "no data files of a known format", "add Parquet files or a folder of images to the dataset"
    if isinstance(error, DatasetNotFoundError) and "gated" in text:
        return (
            "the dataset is gated, and this token has no access to it",
            "request access on the dataset's page, set HF_TOKEN to a token of that account, and run again",
        )
    if isinstance(error, DatasetNotFoundError):
        return (
            "no dataset of this name, or it is private and this token cannot read it",
            "check the spelling; for a private dataset set HF_TOKEN",
        )
    return None


def _other_problem(error: Exception, text: str) -> tuple[str, str]:
    if "scripts are no longer supported" in text:
        return (
            "the dataset consists of a script, which the datasets library no longer runs",
            "set `revision: refs/convert/parquet` to read a Parquet copy, if the dataset has one",
        )
    cause = error.__cause__
    first = text.splitlines()[0]
    detail = f"{first} ({without_token(str(cause).splitlines()[0])})" if cause and str(cause) else first
    return f"cannot be read: {detail}", "check the dataset's page on the Hub"


def load_metric(name: str, cache_folder: Path) -> evaluate.Metric:
    """Return a metric of the Hub or of a local script, loaded by `evaluate.load`. This runs the metric's code.

    Args:
        name: the metric as the recipe has it.
        cache_folder: the folder for the metric's files.

    Raises:
        EvaluationError: the metric is missing, needs a package, is not trusted, or the Hub does not respond.
        MachineError: a download cannot be written to disk.
    """
    check_external_metrics([name])

    def load() -> evaluate.Metric:
        return evaluate.load(
            name,
            module_type="metric",
            cache_dir=str(cache_folder / "metrics"),
            experiment_id=uuid.uuid4().hex,
            keep_in_memory=True,
        )

    try:
        return call(f"metric {name}", load)
    except MachineError:
        raise
    except Exception as error:  # includes whatever the metric's own code raises
        lines = without_token(str(error)).strip().splitlines() or [type(error).__name__]
        raise EvaluationError(
            f"metric {name!r}: cannot be loaded: {lines[0]}",
            hint=_metric_hint(name),
        ) from error


def _metric_hint(name: str) -> str:
    near = other_name(name, CLASS_METRIC_NAMES, METRIC_SYNONYMS) or nearest(name, CLASS_METRIC_NAMES)
    if near is not None:
        return f"did you mean {near}? Other names than those of hubmerge come from Spaces of evaluate"
    return f"use {', '.join(CLASS_METRIC_NAMES)}, which need no network; others come from Spaces of evaluate"
