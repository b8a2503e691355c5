"""Merging: run a recipe, or merge a few models without writing a recipe."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hubmerge.api.outcome import NextStep, links_of, next_steps
from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.errors import UsageError
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder

if TYPE_CHECKING:
    from hubmerge.executor.parallel.processes import Processes
    from hubmerge.methods import AnyMethod
    from hubmerge.report.report import RunReport, StepReport

FolderLike: TypeAlias = "str | os.PathLike[str]"


@dataclass
class StepRun:
    """A run of a recipe. Iterate over it to do the missing steps; each yields its report when it is finished.

    The first fields are the arguments of `run`; `processes` share the work on the tensors. With `state`, the folder
    `out` gets the state after the last step too, so that `combine` can add it to others.

    Attributes:
        steps: reports of the steps that this run finished so far.
        length: number of steps of the stream, once the run has begun.
        addresses: web addresses of the published steps, at the end of the run.
        report: report of the whole stream, at the end of the run.
        repo: repo that the run publishes to, None for none.
        next_steps: what can be done after the run, with commands, at the end of the run.
    """

    recipe: RecipeLike
    out: FolderLike | None = None
    every_step: bool = False
    work_dir: FolderLike | None = None
    locked: bool = False
    replay: bool = False
    summary: FolderLike | None = None
    progress: ProgressOption = "auto"
    processes: Processes | None = None
    state: bool = False
    steps: list[StepReport] = field(default_factory=list, init=False)
    length: int = field(default=0, init=False)
    addresses: list[str] = field(default_factory=list, init=False)
    report: RunReport | None = field(default=None, init=False)
    repo: str | None = field(default=None, init=False)
    next_steps: list[NextStep] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.every_step and self.out is None:
            raise UsageError("--every-step requires --out DIR", hint="add --out DIR")
        if self.state and self.out is None:
            raise UsageError("--state requires --out DIR", hint="add --out DIR")

    def __iter__(self) -> Iterator[StepReport]:
        """Merge, evaluate and publish the missing steps, in order."""
        from hubmerge.executor.parallel.processes import SINGLE_PROCESS
        from hubmerge.run.output_folder import OutputFolder
        from hubmerge.run.run import Run

        progress = open_progress(self.progress)
        loaded = load(self.recipe, progress=progress)
        with (
            interrupts.handled(),
            Run.open(
                loaded,
                user_cache_folder("runs") if self.work_dir is None else Path(self.work_dir),
                progress,
                locked=self.locked and not loaded.part,
                replay=self.replay,
                processes=self.processes or SINGLE_PROCESS,
                out=None
                if self.out is None
                else OutputFolder(Path(self.out), self.every_step, self.state or bool(loaded.part)),
            ) as run,
        ):
            self.length = run.stream.length
            publish = loaded.recipe.publish
            self.repo = None if publish is None else publish.repo
            for step in run.steps():
                self.steps.append(step)
                yield step
            run.write_out()
            self.report, self.addresses = run.report, run.addresses()
            recipe = str(loaded.path) if loaded.path.is_file() else None
            has_state = publish is not None and publish.state != "none" and not run.stream.is_joint
            stacks = bool(loaded.recipe.slices)
            self.next_steps = list(next_steps(run.report, self.repo, recipe, has_state=has_state, stacks=stacks))
            if self.summary is not None:
                from hubmerge.automation.summary import append_summary, summary_text

                append_summary(Path(self.summary), summary_text(run.report, self.steps, self.addresses))

    def finish(self) -> RunReport:
        """Do all missing steps and return the report of the whole stream."""
        for _ in self:
            pass
        assert self.report is not None  # noqa: S101 - set when the iteration ends
        return self.report

    def scores(self) -> dict[str, Any] | None:
        """Return the accuracy matrix and its measures as plain JSON values, None if nothing was evaluated."""
        if self.report is None or not self.report.accuracy_matrix().rows:
            return None
        matrix, own = self.report.accuracy_matrix(), self.report.main_scores(self.report.own_scores)
        return {
            **matrix.to_dict(),
            "base_model": self.report.main_scores(self.report.base_scores),
            "own_checkpoints": own,
            "average": matrix.average(matrix.steps[-1]),
            "backward_transfer": matrix.backward_transfer(),
            "forgetting": matrix.forgetting(),
            "share_of_own": matrix.share_of_own(own),
        }

    def links(self) -> dict[str, str]:
        """Return the web addresses of the last step: repo, step, card and report; empty if nothing is published."""
        if self.report is None or self.repo is None or not self.addresses:
            return {}
        return links_of(self.repo, self.length, {*self.report.all_files})

    def scores_text(self, *, defined: bool = False) -> str:
        """Return the accuracy matrix and the other metrics as text, empty if nothing was evaluated.

        Args:
            defined: True for measures with their definitions.
        """
        if self.report is None:
            return ""
        matrix = self.report.accuracy_matrix()
        base, own = (self.report.main_scores(one) for one in (self.report.base_scores, self.report.own_scores))
        table = matrix.to_text(base, own, defined=defined) if matrix.tasks else ""
        parts = [table, self.report.other_metrics_text() or ""]
        return "\n\n".join(part for part in parts if part)


def run(
    recipe: RecipeLike,
    *,
    out: FolderLike | None = None,
    every_step: bool = False,
    work_dir: FolderLike | None = None,
    locked: bool = False,
    replay: bool = False,
    summary: FolderLike | None = None,
    progress: ProgressOption = "auto",
) -> StepRun:
    """Merge, evaluate and publish the steps of a recipe that are missing.

    Nothing happens before the first step is asked for: iterate over the result, or call its `finish()`. A run that
    was interrupted continues where it stopped.

    Args:
        recipe: the path of a YAML file, a dict with the keys of a recipe, or a loaded recipe.
        out: write the last merged model to this folder, which transformers can load.
        every_step: with `out`, also write each intermediate model, in `out/step-01`, `out/step-02`, ...
        work_dir: folder for states and caches; in the user's cache folder by default.
        locked: take every commit from the lock beside the recipe and refuse any other.
        replay: re-merge from the first published step that no longer matches the recipe.
        summary: append the accuracy table to this Markdown file.
        progress: `"auto"` draws bars in terminals and notebooks, None is silent; an object with the methods of
            `hubmerge.Progress` receives everything itself.

    Returns:
        The run; iterating over it yields the report of each step as soon as the step is finished.

    Raises:
        HubmergeError: the recipe, a checkpoint, the target repo or a folder cannot be used.
        KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP arrived; nothing is published after the line that says so.

    Example:
        for step in hubmerge.run("recipe.yaml", out="merged"):
            print(step.step, step.name, step.scores)
    """
    return StepRun(recipe, out, every_step, work_dir, locked, replay, summary, progress)


def merge(
    base: FolderLike,
    models: Sequence[FolderLike],
    *,
    out: FolderLike,
    method: str | AnyMethod = "opcm",
    parameters: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    progress: ProgressOption = "auto",
) -> Path:
    """Merge models into the base model they were fine-tuned from, and write the result to a folder.

    Args:
        base: the base model, a repo on the Hub (`owner/name`, with an optional `@revision`) or a folder.
        models: the fine-tuned models, in merge order.
        out: the folder to write, which transformers can load.
        method: the name of a merge method (see `hubmerge.methods()`), or an object of a class derived from
            `hubmerge.Method` or `hubmerge.JointMethod`.
        parameters: parameters of the method.
        recipe: further keys of a recipe, such as `{"dtype": "float32"}`.
        progress: see `run`.

    Returns:
        The folder `out`.

    Raises:
        HubmergeError: a model, a parameter or the folder cannot be used.

    Example:
        hubmerge.merge("me/base", ["me/a", "me/b"], method="task_arithmetic", parameters={"scaling": 0.3}, out="merged")
    """
    reports = open_progress(progress)
    folder = Path(out)
    with named_method(method) as name, _work_folder_beside(folder) as work:
        loaded = load({**(recipe or {}), **recipe_keys(base, models, name, parameters)}, progress=reports)
        StepRun(loaded, out=folder, work_dir=work, progress=reports).finish()
    return folder


def _work_folder_beside(folder: Path) -> AbstractContextManager[str]:
    """Return a context with a work folder on the disk of `folder`, which is removed at the end."""
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{folder.name}.work-", dir=parent)


def named_method(method: str | AnyMethod) -> AbstractContextManager[str]:
    """Return a context in which recipes can name the method; it gives the name."""
    if isinstance(method, str):
        return nullcontext(method)
    from hubmerge.methods import given_method

    return given_method(method)


def recipe_keys(
    base: FolderLike, models: Sequence[FolderLike], method: str, parameters: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the keys of a recipe that merges these models."""
    return {
        "merge_method": method,
        "base_model": reference_text(base),
        "models": _entries(models),
        "parameters": dict(parameters or {}),
    }


def reference_text(model: FolderLike) -> str:
    """Return a model as a recipe names it: an existing folder by its path, everything else as it is.

    Example:
        >>> reference_text("openai/clip-vit-base-patch32@main")
        'openai/clip-vit-base-patch32@main'
    """
    if isinstance(model, str) and not os.path.isdir(model):  # noqa: PTH112 - Path.is_dir raises for long names
        return model
    return re.sub(r"[+@]", r"\\\g<0>", os.path.abspath(model))  # noqa: PTH100 - links stay as they are


def _entries(models: Sequence[FolderLike]) -> list[dict[str, str]]:
    """Return the `models` of a recipe; entries whose paths end alike get numbered names."""
    references = [reference_text(model) for model in models]
    endings = [re.split(r"(?<!\\)[@+]", reference)[0].rstrip("/").rpartition("/")[2] for reference in references]
    if len(set(endings)) == len(endings):
        return [{"model": reference} for reference in references]
    return [{"model": reference, "name": f"model-{number}"} for number, reference in enumerate(references, start=1)]
