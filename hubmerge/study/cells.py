"""Cells of a study: single merges, each with a digest of all inputs of its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hubmerge.study.schema import Study
from merge_recipes import Recipe, StreamEntry, Task
from merge_recipes.canonical import content_digest
from merge_recipes.language_task import LANGUAGE_KEYS, LanguageTask

CELL_FORMAT = 1
"""Version of the results; raise it if the same cell gives another result."""


@dataclass(frozen=True)
class Cell:
    """One merge of the study.

    `series` is the name of the variant, `point` the values of its swept parameters. `seed` is the seed of the order,
    None for the order of the recipe. `perturb` is the seed of the change of the first accumulated delta, None for none.
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
        """Series and values of the swept parameters."""
        return ", ".join([self.series, *(f"{name} {value}" for name, value in self.point.items())])

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe of this cell, with its method, its parameters and its entries in its order."""
        entries = tuple(
            entry if self.method == recipe.merge_method else entry.model_copy(update={"parameters": {}})
            for entry in ordered(recipe, self.tasks, self.seed)
        )
        changed = recipe.with_stream(entries)
        return changed.model_copy(update={"merge_method": self.method, "parameters": self.parameters, "publish": None})


def cells(study: Study, length: int) -> Iterator[Cell]:
    """Yield every cell of a study by variant, sweep, number of tasks and order; `length` is that of the stream."""
    for variant in study.methods:
        for point in variant.points():
            for tasks in study.tasks or (length,):
                for seed in study.seeds(tasks):
                    for perturb in variant.perturb or (None,):
                        parameters = {**variant.fixed, **point}
                        yield Cell(
                            variant.series, variant.method, parameters, point, tasks, seed, variant.round_to, perturb
                        )


def ordered(recipe: Recipe, tasks: int, seed: int | None) -> tuple[StreamEntry, ...]:
    """Return the first `tasks` entries as listed, in the order of `order: shuffled` with this seed."""
    listed = recipe.with_stream(recipe.stream()[:tasks])
    return listed.stream() if seed is None else listed.model_copy(update={"order": "shuffled", "seed": seed}).stream()


QRELS = ("qrels", "qrels_revision")
"""Keys of the second repo of a data set."""


def task_content(task: Task, commit: str | None) -> dict[str, Any]:
    """Return the inputs of a task's scores; with a known commit, the place of the dataset is left out."""
    content = task.model_dump(mode="json", exclude={"validation"})
    for key in LANGUAGE_KEYS:  # not in the results of version 0.1.0
        if content[key] == LanguageTask.model_fields[key].default or content[key] == []:
            del content[key]
    if task.dataset.max_examples is None:
        del content["dataset"]["sample"], content["dataset"]["seed"]  # not in the results of version 0.1.0
    if task.head is None:
        del content["head"]  # not in earlier results
    for key in ("sentence1", "sentence2", "score", "query", "positive", "corpus", "queries", "cast", "more", *QRELS):
        if key not in task.dataset.model_fields_set:
            del content["dataset"][key]  # not in earlier results
    if commit is not None:
        dataset = content["dataset"]
        places = {"path": None, "revision": None, **dict.fromkeys(dataset.keys() & set(QRELS))}
        content["dataset"] = {**dataset, **places, "commit": commit}
    return content


def cell_digest(cell: Cell, recipe: Recipe, commits: dict[str, str], datasets: dict[str, str], score: str) -> str:
    """Return the digest of a cell.

    Args:
        cell: the cell.
        recipe: the recipe of the study.
        commits: the commits of the base model ("") and of the entries, by name.
        datasets: the commits of the datasets, by task.
        score: the scored steps, "every" or "last".
    """
    merged = cell.recipe(recipe)
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
            **({"state_dtype": merged.state_dtype} if merged.state_dtype != "float64" else {}),
            "tasks": [task_content(task, datasets.get(task.name)) for task in merged.scored_tasks],
            "round_to": cell.round_to,
            "perturb": cell.perturb,
            "score": score,
        }
    )
