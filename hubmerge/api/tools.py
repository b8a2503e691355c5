"""Studies, the embedded Hub and the demo."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder

if TYPE_CHECKING:
    from hubmerge.study.results import CellResult


@dataclass(frozen=True)
class StudyResult:
    """Outcome of a study; `str(outcome)` gives its tables as Markdown."""

    folder: Path
    """Folder with results.jsonl, tables.md, tables.tex, tables.json, report.html and the plots."""
    cells: tuple[CellResult, ...]
    """Results, one for each cell."""

    @property
    def table(self) -> dict[str, Any]:
        """The table as data: `rows`, one for each variant and reference, with shares; and `definitions`."""
        table: dict[str, Any] = json.loads((self.folder / "tables.json").read_text(encoding="utf-8"))
        return table

    def __str__(self) -> str:
        return (self.folder / "tables.md").read_text(encoding="utf-8")


def study(
    study: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> StudyResult:
    """Merge and score the missing cells of a study, then write its tables and plots.

    Args:
        study: the path of a YAML file.
        out: folder for results, tables and plots; the path of the study without its suffix by default.
        cache: folder for prepared datasets; in the user's cache folder by default.
        progress: see `hubmerge.run`.

    Raises:
        RecipeError: the study or its recipe has problems.
        HubmergeError: a source cannot be read, or a merge or a score fails.
    """
    from hubmerge.stream.catalog import installed_catalog
    from hubmerge.study import load_study, run_study

    path = Path(study)
    folder = path.with_suffix("") if out is None else Path(out)
    prepared = user_cache_folder("runs") / "cache" if cache is None else Path(cache)
    with interrupts.handled():
        cells = run_study(load_study(path, installed_catalog()), folder, prepared, open_progress(progress))
    return StudyResult(folder, tuple(cells))


def serve_hub(
    root: str | os.PathLike[str] | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    throttle: float | None = None,
    faults: float = 0.0,
    fault_seed: int = 0,
) -> None:
    """Serve a Hub from a folder of this machine until Ctrl-C or SIGTERM.

    Args:
        root: folder of its files; in the user's cache folder by default.
        host: address to listen on.
        port: port to listen on; 0 for a free one.
        throttle: limit of the bandwidth in each direction, in MB/s.
        faults: fraction of requests that fail, from 0 to 1.
        fault_seed: seed that decides which requests fail.

    Raises:
        MachineError: the port or the folder cannot be used.
    """
    from hubmerge.localhub import serve

    folder = user_cache_folder("hub") if root is None else Path(root)
    serve(folder, host, port, throttle=throttle, faults=faults, fault_seed=fault_seed)


def demo(
    root: str | os.PathLike[str] | None = None,
    *,
    namespace: str = "hubmerge-demo",
    endpoint: str | None = None,
    arguments: Sequence[str] = (),
    progress: ProgressOption = "auto",
) -> None:
    """Train a tiny CLIP stream, upload it to an embedded Hub and run the quickstart recipe.

    Args:
        root: folder of all files; in the user's cache folder by default. What exists is used again.
        namespace: owner of the repos.
        endpoint: address of another Hub to use; None starts the embedded Hub.
        arguments: further arguments of `hubmerge run`, such as `["--quiet"]`.
        progress: receives a note for each stage.

    Raises:
        HubmergeError: a part of the demo failed.
    """
    from hubmerge.demo import run_demo

    folder = user_cache_folder("demo") if root is None else Path(root)
    notes = open_progress(progress).note
    with interrupts.handled():
        run_demo(folder, endpoint, notes, namespace=namespace, run_arguments=list(arguments))
