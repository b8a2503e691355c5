"""Disk usage of runs, compared with their plans."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hubmerge.errors import MachineError
from hubmerge.plan import budget
from hubmerge.plan.disk import check_room
from hubmerge.plan.whole_plan import plan_run
from hubmerge.run.pipeline import MAX_UNFINISHED
from hubmerge.run.run import Run
from hubmerge.stream.catalog import installed_catalog
from hubmerge.support.progress import Advance, SilentProgress
from merge_recipes import load_recipe
from tests.stage import Stage

STEPS = 6


class PeakUsage(SilentProgress):
    """Progress that delays publication as long as a step can be merged, and records the peak usage of the work folder.

    Attributes:
        states: Peak number of states.
        models: Peak number of merged models.
        nbytes: Peak size in bytes.
    """

    def __init__(self, work: Path, length: int) -> None:
        self.states = self.models = self.nbytes = 0
        self._work, self._length = work, length
        self._written = [threading.Event() for _ in range(length + 1)]

    @contextmanager
    def stage(self, title: str, *_: object, **__: object) -> Iterator[Advance]:
        step = int(title.split()[1].rstrip(":")) if title.startswith("step ") else 0
        if ": publish" in title:
            assert self._written[min(step + MAX_UNFINISHED, self._length)].wait(120)
        yield lambda _: None
        self._look()
        if ": write the merged model" in title:
            self._written[step].set()

    def _look(self) -> None:
        files = {path: path.stat().st_size for path in self._work.rglob("*") if path.is_file()}
        self.states = max(self.states, sum(path.name == "accumulated.safetensors" for path in files))
        self.models = max(self.models, len({path.parent for path in files if path.name.startswith("model")}))
        self.nbytes = max(self.nbytes, sum(files.values()))


def peak_usage(stage: Stage, folder: Path, **changes: Any) -> tuple[PeakUsage, int, int, int]:
    stage.fetch()
    names = [*stage.towers, *stage.towers]
    models = [{"model": stage.towers[name], "name": f"{name}-{number}"} for number, name in enumerate(names)]
    recipe = stage.write(folder, stage.recipe(None, evaluate=None, models=models, **changes))
    loaded = load_recipe(recipe, installed_catalog())
    plan = plan_run(loaded, SilentProgress())
    progress = PeakUsage(folder / "work", STEPS)
    with Run.open(loaded, folder / "work", progress) as run:
        assert len(list(run.steps())) == STEPS
    return progress, plan.work_bytes, plan.state_bytes, plan.written.written_bytes


def test_peak_usage_of_a_run_that_publishes_every_step(
    stage: Stage, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    seen, planned, state, model = peak_usage(stage, tmp_path, publish={"repo": repo_name("merged")})
    assert (seen.states, seen.models) == (budget.STATES_AT_ONCE, budget.MODELS_AT_ONCE)
    assert budget.STATES_AT_ONCE == budget.MODELS_AT_ONCE == MAX_UNFINISHED + 2
    assert 4 * (state + model) - state < seen.nbytes <= planned


def test_peak_usage_of_a_run_for_the_last_model(stage: Stage, tmp_path: Path) -> None:
    seen, planned, state, model = peak_usage(stage, tmp_path)
    assert (seen.states, seen.models) == (1, 1)
    assert state + model - 10_000 < seen.nbytes <= planned < state + model + 3 * budget.METADATA_BYTES


@pytest.mark.parametrize("method", ["ties", "linear"])
def test_state_bytes_include_state_parts_of_the_method(stage: Stage, tmp_path: Path, method: str) -> None:
    models = [{"model": repo, "name": name, "parameters": {"weight": 0.5}} for name, repo in stage.towers.items()]
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None, merge_method=method, models=models))
    loaded = load_recipe(recipe, installed_catalog())
    plan = plan_run(loaded, SilentProgress())
    with Run.open(loaded, tmp_path / "work", SilentProgress()) as run:
        list(run.steps())
    files = list((tmp_path / "work").glob("*/states/*/*.safetensors"))
    assert plan.state_bytes <= sum(path.stat().st_size for path in files) <= plan.state_bytes + budget.METADATA_BYTES


def test_files_of_an_earlier_run_count_as_free_space(stage: Stage, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    plan = plan_run(load_recipe(recipe, installed_catalog()), SilentProgress())
    large = shutil.disk_usage(tmp_path).free + 10**9
    base = replace(plan.sources[0], auxiliary_bytes=large)
    plan = replace(plan, sources=(base, *plan.sources[1:]))
    work = tmp_path / "work"
    for name, enough in (("cache", False), ("states", True)):
        (work / name).mkdir(parents=True)
        with (work / name / "left").open("wb") as file:
            file.truncate(large)  # a sparse file
        if enough:
            check_room(plan, work, tmp_path)
        else:
            with pytest.raises(MachineError, match="the run needs about"):
                check_room(plan, work, tmp_path)


class ModelFolders(SilentProgress):
    """Progress that lists the model folders whenever a merged model is written."""

    def __init__(self, work: Path) -> None:
        self.seen: list[list[str]] = []
        self._work = work

    @contextmanager
    def stage(self, title: str, *_: object, **__: object) -> Iterator[Advance]:
        if ": write the merged model" in title:
            self.seen.append(sorted(path.name for path in self._work.glob("*/*step-*")))
        yield lambda _: None


def test_old_model_is_removed_before_a_step_is_written_again(stage: Stage, tmp_path: Path) -> None:
    loaded = load_recipe(stage.write(tmp_path, stage.recipe(None, evaluate=None)), installed_catalog())
    work = tmp_path / "work"
    for _ in range(2):
        watching = ModelFolders(work)
        with Run.open(loaded, work, watching) as run:
            assert len(list(run.steps())) == 3
            run.workspace.report_file.unlink()
        assert watching.seen == [[".step-03.partial"]]
