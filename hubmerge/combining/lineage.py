"""Lock and report of a combined stream: all entries of all parts, with their commits and licenses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hubmerge.combining.recipe import Placed, tasks_of
from hubmerge.report.report import RunReport, Scores, StepReport
from hubmerge.run.step_report import fresh_report
from hubmerge.stream.replacements import replaced_by
from hubmerge.stream.stream import Stream
from merge_recipes import LoadedRecipe, Lock, LockedDataset, LockedModel, StreamEntry, recipe_digest


def combined_lock(loaded: LoadedRecipe, entries: Sequence[StreamEntry], placed: Sequence[Placed]) -> Lock:
    """Return the lock of the combined stream, from those of its parts.

    Args:
        loaded: The recipe of the combined stream.
        entries: Its entries in merge order.
        placed: The parts.
    """
    pinned = {
        one.names[entry.name]: model
        for one in placed
        for entry, model in zip(one.part.entries, one.part.lock.models, strict=True)
    }
    datasets: dict[tuple[str, str | None, str | None], LockedDataset] = {}
    for one in placed:
        for data in one.part.lock.datasets:
            datasets.setdefault((data.path, data.name, data.revision), data)
    return Lock(
        recipe=recipe_digest(loaded.recipe),
        base_model=_renamed(placed[0].part.lock.base_model, loaded),
        models=tuple(
            pinned[entry.name].model_copy(update={"name": entry.name, "reference": entry.model}) for entry in entries
        ),
        datasets=tuple(datasets.values()),
    )


def _renamed(base: LockedModel, loaded: LoadedRecipe) -> LockedModel:
    return base.model_copy(update={"reference": loaded.recipe.base_model, "name": loaded.recipe.base_model.short_name})


def combined_report(stream: Stream, placed: Sequence[Placed], heads: dict[str, str], *, keeps_first: bool) -> RunReport:
    """Return the report of all steps but the last, which has what was known of them when the parts were published.

    Args:
        stream: The combined stream.
        placed: The parts.
        heads: Digests of the descriptions of heads, by the names of their entries in the combined stream.
        keeps_first: True if the steps of the first part are already published in the target repo.
    """
    report = fresh_report(stream)
    base = placed[0].part.report.base_model
    report = replace(report, base_model=replace(report.base_model, licenses=base.licenses))
    steps = list(_steps(stream, placed, heads, keeps_first=keeps_first))
    for step in steps[:-1]:
        report = report.with_step(step)
    return replace(report, base_scores=_scores(placed, "base_scores"), own_scores=_scores(placed, "own_scores"))


def last_step(stream: Stream, placed: Sequence[Placed], heads: dict[str, str], measured: StepReport) -> StepReport:
    """Return the report of the last step: what the part says about the checkpoint, and what was measured now.

    Args:
        stream: The combined stream.
        placed: The parts.
        heads: As for `combined_report`.
        measured: The report of the step from the statistics of the combined state.
    """
    *_, known = _steps(stream, placed, heads, keeps_first=False)
    return replace(
        measured,
        task_vector_norm=known.task_vector_norm,
        licenses=known.licenses,
        head=known.head,
        combined=tuple(one.part.record() for one in placed),
    )


def _steps(
    stream: Stream, placed: Sequence[Placed], heads: dict[str, str], *, keeps_first: bool
) -> Iterator[StepReport]:
    number = 0
    for place, one in enumerate(placed):
        for step in one.part.report.steps:
            number += 1
            if place == 0 and keeps_first:
                yield step
                continue
            locked = stream.lock.models[number - 1]
            moved = replace(
                step,
                step=number,
                name=locked.name,
                reference=str(locked.reference),
                scores={},
                files={},
                rounding=None,
                seconds=None,
                state_digest=None,
                digest=None,
                chain_digest=stream.chain[number],
                head=None if step.head is None else heads.get(locked.name, step.head),
                revokes=None if step.revokes is None else one.names[step.revokes],
                replaces=replaced_by(stream.entries, number),
            )
            yield moved if place == 0 else _without_position(moved)


def _without_position(step: StepReport) -> StepReport:
    """Return a step without what depends on the steps before it."""
    return replace(
        step,
        scale=None,
        accumulated_norm=None,
        drift=None,
        similarity=None,
        similarities=(),
        warnings=(),
    )


def _scores(placed: Sequence[Placed], kind: str) -> Scores:
    """Return the scores of the base model or of the checkpoints alone, by the names of the tasks in the stream."""
    found: Scores = {}
    for one in placed:
        known: Scores = getattr(one.part.report, kind)
        found |= {one.tasks[task.name]: known[task.name] for task in tasks_of(one.part) if task.name in known}
    return found
