"""What an evaluation fetches: the rows of a dataset, and metrics that do not ship with the package."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import evaluate
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from hubmerge.errors import DatasetError, EvaluationError, HubError, MachineError
from hubmerge.evaluation.trusted_metrics import check_metrics
from hubmerge.hub.client import call, causes, explain
from hubmerge.hub.fetch import remove_unfinished_downloads
from hubmerge.support.redaction import without_token
from hubmerge.support.text import short_commit
from merge_recipes import DatasetReference
from merge_recipes.references import is_commit


def load_rows(
    dataset: DatasetReference, commit: str | None = None, *, sleep: Callable[[float], None] = time.sleep
) -> datasets.Dataset:
    """All rows of the split that a task names, at `commit`; of a local folder as it is, whose digest `commit` may be.

    Raises:
        DatasetError: no such dataset, subset or split, no access, or files that cannot be read.
    """
    path, subset, split, local = dataset.path, dataset.name, dataset.split, dataset.is_local
    what = f"dataset {path}" if local or commit is None else f"dataset {path}@{short_commit(commit)}"
    if local:
        path = str(Path(path).expanduser())
        if not Path(path).is_dir():
            raise DatasetError(f"{what}: no such folder", hint="a local dataset is a folder with its data files")
    elif Path(path).is_dir():
        raise DatasetError(
            f"{what}: a folder of that name lies in the working directory and would be read in its place",
            hint=f"run from another folder, or write ./{path} if the folder is meant",
        )
    if not local:
        remove_unfinished_downloads(path, "dataset")
    revision = commit if is_commit(commit) and not local else None
    options: dict[str, Any] = _local_options(commit) if local else {"revision": revision}
    try:
        return call(what, lambda: datasets.load_dataset(path, subset, split=split, **options), sleep=sleep)
    except MachineError:
        raise
    except HubError as error:
        raise DatasetError(error.message, hint=error.hint) from error
    except Exception as error:  # datasets raises a dozen kinds, from ValueError to pyarrow's own
        raise _explain_dataset(error, what, subset, split) from error


def _local_options(digest: str | None) -> dict[str, Any]:
    """Keep the library from taking a folder for another one of the same name and card, whose rows it has in its cache.

    It looks at names and settings, not at the files. With a digest each content has a cache of its own; without one
    nothing in the cache is used.
    """
    if digest is None:
        return {"download_mode": datasets.DownloadMode.FORCE_REDOWNLOAD}
    return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / "local" / digest.removeprefix("sha256:")[:32])}


def _explain_dataset(error: Exception, what: str, subset: str | None, split: str) -> DatasetError:
    """Turn what the datasets library raised into a sentence about the dataset, with a way out."""
    cause = error.__cause__
    text = without_token(str(error).strip() or type(error).__name__)
    from_hub = next((e for e in causes(error) if isinstance(e, (HfHubHTTPError, OfflineModeIsEnabled))), None)
    if from_hub is not None:
        told = explain(from_hub, what)
        return DatasetError(told.message, hint=told.hint)
    if isinstance(error, ValueError) and "BuilderConfig" in text:
        known = text.split("Available:")[-1].strip() if "Available:" in text else text
        return DatasetError(f"{what}: no subset {subset!r}; there are: {known}", hint="set `dataset: {name: ...}`")
    if isinstance(error, ValueError) and "Config name is missing" in text:
        known = text.split("Please pick one among the available configs:")[-1].split("\n")[0].strip()
        return DatasetError(
            f"{what}: it has several subsets and the recipe names none; there are: {known}",
            hint="set `dataset: {name: ...}`",
        )
    if isinstance(error, ValueError) and "nknown split" in text:
        known = text.split("Should be one of")[-1].strip(" .")
        return DatasetError(f"{what}: no split {split!r}; there are: {known}", hint="set `dataset: {split: ...}`")
    if isinstance(error, DataFilesNotFoundError):
        return DatasetError(f"{what}: it holds no data files of a known format", hint="Parquet and image folders do")
    if isinstance(error, DatasetNotFoundError) and "gated" in text:
        return DatasetError(
            f"{what}: the dataset is gated, and this token has not been granted access",
            hint="ask for access on the dataset's page, then run again with the token of that account in HF_TOKEN",
        )
    if isinstance(error, DatasetNotFoundError):
        return DatasetError(
            f"{what}: no such dataset, or it is private and this token may not see it",
            hint="check the name for a typing error; for a private dataset set HF_TOKEN",
        )
    if "scripts are no longer supported" in text:
        return DatasetError(
            f"{what}: it is made by a script, which the datasets library no longer runs",
            hint="many such datasets have a Parquet copy: set `revision: refs/convert/parquet`",
        )
    first = text.splitlines()[0]
    detail = f"{first} ({without_token(str(cause).splitlines()[0])})" if cause and str(cause) else first
    return DatasetError(f"{what}: cannot be read: {detail}", hint="look at the dataset's page, or load it by hand")


def load_metric(name: str, cache_folder: Path) -> evaluate.Metric:
    """A metric of the Hub through `evaluate.load`, or of a local script; it runs the metric's own code.

    Raises:
        EvaluationError: there is no such metric, it needs a package, it is not trusted, or the Hub cannot be reached.
    """
    check_metrics([name])

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
    except Exception as error:  # whatever the metric's own code raises, too
        lines = without_token(str(error)).strip().splitlines() or [type(error).__name__]
        raise EvaluationError(
            f"metric {name!r}: cannot be loaded: {lines[0]}",
            hint="accuracy, f1, top-5 and confusion need no network; others come from the Hub's evaluate spaces",
        ) from error
