"""The cells of a study: what is merged how and in which order, each with a digest of all that its result rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hubmerge.study.schema import Study
from merge_recipes import Recipe, StreamEntry, Task
from merge_recipes.canonical import content_digest

CELL_FORMAT = 1
"""Raised whenever the same cell would give another result."""


@dataclass(frozen=True)
class Cell:
    """One merge of the study.

    `series` names the variant, `point` holds the values of its swept parameters. `seed` is that of the order, None
    for the recipe's own; `perturb` the seed of the change to the first accumulated delta, None for no change.
    """

    series: str
    method: str
    parameters: dict[str, Any]
    point: dict[str, Any]
    tasks: int
    seed: int | None
    round_to: str | None = None
    perturb: int | None = None

    @property
    def label(self) -> str:
        """The series and the values of what is swept."""
        return ", ".join([self.series, *(f"{name} {value}" for name, value in self.point.items())])

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe that merges this cell: its method, its parameters, its entries in its order."""
        entries = tuple(
            entry if self.method == recipe.merge_method else entry.model_copy(update={"parameters": {}})
            for entry in ordered(recipe, self.tasks, self.seed)
        )
        changed = recipe.with_stream(entries)
        return changed.model_copy(update={"merge_method": self.method, "parameters": self.parameters, "publish": None})


def cells(study: Study, length: int) -> Iterator[Cell]:
    """Every cell of a study of a stream of so many entries: variants, then sweeps, then tasks, then orders."""
    for variant in study.methods:
        for point in variant.points():
            for tasks in study.tasks or (length,):
                for seed in study.seeds:
                    for perturb in variant.perturb or (None,):
                        parameters = {**variant.fixed, **point}
                        yield Cell(
                            variant.series, variant.method, parameters, point, tasks, seed, variant.round_to, perturb
                        )


def ordered(recipe: Recipe, tasks: int, seed: int | None) -> tuple[StreamEntry, ...]:
    """The first entries of the stream as listed, in the order that `order: shuffled` with this seed would give."""
    listed = recipe.with_stream(recipe.stream()[:tasks])
    return listed.stream() if seed is None else listed.model_copy(update={"order": "shuffled", "seed": seed}).stream()


def task_content(task: Task, commit: str | None) -> dict[str, Any]:
    """What the scores of a task rest on: where its dataset lies does not matter, if it is known what is in it."""
    content = task.model_dump(mode="json")
    if commit is not None:
        dataset = content["dataset"]
        content["dataset"] = {**dataset, "path": None, "revision": None, "commit": commit}
    return content


def cell_digest(cell: Cell, recipe: Recipe, commits: dict[str, str], datasets: dict[str, str], score: str) -> str:
    """The digest of a cell: `commits` are those of the base model ("") and of the entries, by name."""
    merged = cell.recipe(recipe)
    evaluate = merged.evaluate
    return content_digest(
        {
            "format": CELL_FORMAT,
            "base_model": commits[""],
            "method": merged.merge_method,
            "parameters": merged.parameters,
            "entries": [[entry.name, commits[entry.name], entry.parameters] for entry in merged.stream()],
            "dtype": merged.dtype,
            "out_dtype": merged.out_dtype,
            "tensors": merged.tensors.model_dump(mode="json"),
            "tasks": [task_content(task, datasets.get(task.name)) for task in (evaluate.tasks if evaluate else ())],
            "round_to": cell.round_to,
            "perturb": cell.perturb,
            "score": score,
        }
    )
