"""What a run is going to do, from headers alone: steps, downloads, what is merged and kept, and the room it takes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints import (
    AlignedCheckpoint,
    Checkpoint,
    MergePlan,
    Selection,
    align,
    check_config,
    check_loads,
    make_plan,
    weight_matrices,
)
from hubmerge.errors import CheckpointError, MachineError
from hubmerge.evaluation import METRIC_NAMES
from hubmerge.evaluation.trusted_metrics import check_metrics
from hubmerge.plan import budget
from hubmerge.plan.layout_text import written_layout
from hubmerge.stream.open_source import fetched_sources, is_fetched_partially, open_for_planning, resolve_adapter
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.sources import Source, cached_bytes, files_of
from hubmerge.stream.stream import Stream, resolve_stream
from hubmerge.support.progress import Progress
from hubmerge.support.text import readable
from merge_recipes import LoadedRecipe, Recipe

CHECKPOINTS_AT_ONCE = 4
"""How many checkpoints are here at most: one on its way, one being merged, two being finished."""

FLOPS_PER_SECOND = 40e9
"""What one core of a usual machine does in float64 matrix products: good for an estimate, no promise."""


@dataclass(frozen=True)
class PlannedSource:
    """A model that will be read: its files' size, and how much of that is not yet on this machine.

    `companion_bytes` of the size are no weights.
    """

    name: str
    source: Source
    total_bytes: int
    missing_bytes: int
    companion_bytes: int = 0


@dataclass(frozen=True)
class RunPlan:
    """All that can be told before the first weight is read.

    `written` is what of `merge` goes into the merged model's files, `config` their config.json. `layouts` tells for
    each checkpoint how its names are brought to those of the base model, `loading` what is to be told of how the merged
    model will load.
    """

    stream: Stream
    first_step: int
    merge: MergePlan
    written: MergePlan
    config: Mapping[str, Any]
    sources: tuple[PlannedSource, ...]
    ignored: tuple[str, ...]
    layouts: Mapping[str, str]
    loading: tuple[str, ...]

    @property
    def layout_written(self) -> str:
        """The class, the names and the dtypes that the merged model has in its files."""
        return written_layout(self.config, {spec.name: spec for spec in self.written.specs})

    @property
    def download_bytes(self) -> int:
        """How much will be fetched from the Hub."""
        if not self.steps:
            return 0
        return sum(source.missing_bytes for source in self.sources)

    @property
    def work_bytes(self) -> int:
        """Room in the work folder for the states and merged models that are there at one time.

        Where checkpoints are not fetched whole, also for what is fetched of those that are here at one time.
        """
        if not self.steps:
            return 0
        model = self.written.written_bytes + self.sources[0].companion_bytes
        downloads = any(source.missing_bytes for source in self.sources[1:])
        lasting = budget.work_bytes(
            self.stream, self.merge, self.steps, state=self.state_bytes, model=model, downloads=downloads
        )
        return lasting + self._parts_bytes

    @property
    def state_bytes(self) -> int:
        """Size of the last state."""
        return budget.state_bytes(self.stream, self.merge)

    @property
    def memory_bytes(self) -> int:
        """About how much memory the run takes at most, 0 where there is nothing to do."""
        return budget.memory_bytes(self.stream, self.merge) if self.steps else 0

    @property
    def cache_bytes(self) -> int:
        """Room in the Hub cache."""
        return self.sources[0].missing_bytes if self._by_ranges and self.steps else self.download_bytes

    @property
    def _by_ranges(self) -> bool:
        return self.stream.recipe.fetch == "ranges"

    @property
    def _parts_bytes(self) -> int:
        missing = sorted((source.missing_bytes for source in self.sources[1:]), reverse=True)
        return sum(missing[:CHECKPOINTS_AT_ONCE]) if self._by_ranges else 0

    @property
    def steps(self) -> range:
        """The steps that are missing."""
        return range(self.first_step, self.stream.length + 1)

    @property
    def estimated_seconds(self) -> float:
        """A rough guess of the merging alone, on one core, without downloads and evaluation."""
        passes_bytes = 4 * self.merge.state_bytes
        return len(self.steps) * (self.merge.flops_per_step / FLOPS_PER_SECOND + passes_bytes / 1e9)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "base_model": {"reference": str(self.stream.base.reference), "commit": self.stream.base.commit},
            "merge_method": self.stream.recipe.merge_method,
            "first_step": self.first_step,
            "steps": [
                {"step": step, "name": entry.name, "reference": str(entry.model), "commit": locked.commit}
                for step, (entry, locked) in enumerate(
                    zip(self.stream.entries, self.stream.lock.models, strict=True), start=1
                )
            ],
            "download_bytes": self.download_bytes,
            "work_bytes": self.work_bytes,
            "memory_bytes": self.memory_bytes,
            "state_bytes": self.state_bytes,
            "model_bytes": self.written.written_bytes,
            "weight_matrices": self.merge.counts["merge-matrix"],
            "other_tensors": self.merge.counts["merge-other"],
            "kept": {tensor.name: tensor.reason for tensor in self.merge.kept},
            "ignored": list(self.ignored),
            "layout_written": self.layout_written,
            "layouts": dict(self.layouts),
            "loading": list(self.loading),
            "how_matrices_were_told": self.merge.matrix_rule,
            "estimated_seconds": round(self.estimated_seconds, 1),
        }


def plan_run(loaded: LoadedRecipe, progress: Progress) -> RunPlan:
    """Plan a run without changing anything on this machine or on the Hub."""
    with progress.stage("resolve commits"):
        stream = resolve_stream(loaded, PinnedCommits.gather(loaded))
    published = stream.published_report()
    first = len(published.steps) + 1 if published is not None else 1
    return plan_steps(stream, first, progress)


def plan_steps(stream: Stream, first_step: int, progress: Progress) -> RunPlan:
    """Read the headers of the base model and of the checkpoints still to merge, and plan the merge.

    Raises:
        CheckpointError: names or shapes do not fit together.
        HubError: a file is missing or may not be read.
        EvaluationError: a metric is code that nobody said to trust.
    """
    # With nothing left to merge, the last step stands for the others.
    steps = range(min(first_step, stream.length), stream.length + 1)
    selection = selection_of(stream.recipe)
    tasks = stream.recipe.evaluate.tasks if stream.recipe.evaluate is not None else ()
    check_metrics(name for task in tasks for name in task.metrics if name not in METRIC_NAMES)
    with progress.stage("read headers", len(steps) + 1) as advance:
        base = open_for_planning(stream.base)
        check_config(base.config, base.tensors, base.label)
        rule = weight_matrices(base.config, base.tensors)
        advance(1)
        aligned: list[AlignedCheckpoint] = []
        sources = [_planned_source("base model", stream.base, auxiliary=True)]
        for step in range(1, stream.length + 1):
            source = stream.source(step)
            if step in steps:
                source = resolve_adapter(source)
                aligned.append(align(base, open_for_planning(source, base), selection=selection, ties=rule.ties))
                sources.append(_planned_source(stream.entries[step - 1].name, source))
                advance(1)
            else:
                sources.append(PlannedSource(stream.entries[step - 1].name, source, 0, 0))
    merge = make_plan(base, aligned, rule, selection=selection, out_dtype=out_dtype(stream.recipe))
    if stream.recipe.fetch == "ranges":
        for step, checkpoint in zip(steps, aligned, strict=True):
            sources[step] = _without_the_rest(sources[step], checkpoint, merge)
    ignored = sorted(
        f"{checkpoint.label}: {tensor.name} ({tensor.reason})"
        for checkpoint in aligned
        for tensor in checkpoint.ignored
    )
    written, original = _what_is_written(stream, merge, base, aligned[0])
    check_config(original.config, base.tensors, original.label)
    loading = _check_loads(written, original, whole=original is base)
    names = [entry.name for entry in stream.entries[steps.start - 1 :]]
    layouts = {name: checkpoint.layout for name, checkpoint in zip(names, aligned, strict=True)}
    return RunPlan(
        stream, first_step, merge, written, original.config, tuple(sources), tuple(ignored), layouts, loading
    )


def _what_is_written(
    stream: Stream, merge: MergePlan, base: Checkpoint, checkpoint: Checkpoint
) -> tuple[MergePlan, Checkpoint]:
    """The whole base model around the merged tensors, or for `publish: {model: tower}` those alone.

    With each the model whose config.json it gets.
    """
    wanted = stream.recipe.publish
    if wanted is None or wanted.model == "full":
        return merge, base
    if set(checkpoint.tensors) != {tensor.name for tensor in merge.merged}:
        raise CheckpointError(
            f"{checkpoint.label}: its tensors are not just the merged ones, so its config.json fits no tower of them",
            hint="write `publish: {model: full}`",
        )
    return replace(merge, tensors=merge.merged, left_out=()), checkpoint


def _check_loads(written: MergePlan, original: Checkpoint, *, whole: bool) -> tuple[str, ...]:
    """Check that what is written loads; what is to be told of it."""
    shapes = {tensor.name: tensor.shape for tensor in written.tensors}
    stored = {name: info.shape for name, info in original.tensors.items()}
    try:
        return check_loads(original.config, shapes, stored, original.label)
    except CheckpointError as error:
        if whole:
            raise
        raise CheckpointError(f"the tower alone: {error.message}", hint="write `publish: {model: full}`") from error


def selection_of(recipe: Recipe) -> Selection:
    """Return the recipe's rules on tensor names."""
    return Selection(recipe.tensors.include, recipe.tensors.exclude)


def input_dtype(recipe: Recipe) -> torch.dtype | None:
    """Return what the checkpoints' values are rounded to before the arithmetic, None for nothing."""
    return None if recipe.dtype is None else getattr(torch, recipe.dtype)


def out_dtype(recipe: Recipe) -> torch.dtype | None:
    """Return what is written, None for each tensor's own dtype."""
    name = recipe.out_dtype or recipe.dtype
    return None if name is None else getattr(torch, name)


def _planned_source(name: str, source: Source, *, auxiliary: bool = False) -> PlannedSource:
    total = missing = companion_bytes = 0
    for part in fetched_sources(source):
        # The base model is counted once, and not again for every adapter that is applied to it.
        if part != source.base:
            files = files_of(part, auxiliary=auxiliary)
            size = sum(file.size for file in files)
            total += size
            missing += 0 if part.is_local else size - cached_bytes(part, files)
            companion_bytes += sum(file.size for file in files if not file.path.endswith((".safetensors", ".bin")))
    return PlannedSource(name, source, total, missing, companion_bytes)


def _without_the_rest(planned: PlannedSource, checkpoint: AlignedCheckpoint, merge: MergePlan) -> PlannedSource:
    """The source, where only what is merged is fetched of it."""
    model = fetched_sources(planned.source)[0]
    if not is_fetched_partially(model, files_of(model)):
        return planned
    merged = sum(checkpoint.tensors[tensor.name].nbytes for tensor in merge.merged)
    return replace(planned, missing_bytes=min(planned.missing_bytes, merged))


def check_room(plan: RunPlan, work_dir: Path, cache: Path) -> None:
    """Refuse a run that cannot end well for lack of disk. What lies in the work folder already takes none any more.

    Raises:
        MachineError: too little room in the work folder, or for what will be downloaded.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((work_dir, max(0, plan.work_bytes - _taken(work_dir))), (cache, plan.cache_bytes)):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        device = there.stat().st_dev
        needs[device] = (there, needs.get(device, (there, 0))[1] + needed)
    for there, needed in needs.values():
        free = shutil.disk_usage(there).free
        if needed > free:
            raise MachineError(
                f"{there}: the run needs about {readable(needed)}, only {readable(free)} are free",
                hint="free some space, or choose another --work-dir or HF_HOME",
            )


def _taken(work_dir: Path) -> int:
    """Size of what an earlier run left in a work folder, but for what evaluation prepared."""
    kept = [path for path in work_dir.glob("*") if path.name != "cache"]
    files = [*kept, *(file for path in kept for file in path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
