"""Inputs of a step: base model, checkpoints, adapters and data sets at their commits, as the lock pins them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

from hubmerge.report.report import RunReport
from merge_recipes import Lock, LockedModel, ModelReference
from merge_recipes.references import is_commit, is_local_path

CACHED_INPUTS = 4096
"""Number of inputs whose texts are kept from step to step."""

Role = Literal["base model", "checkpoint", "adapter", "tokenizer", "data set"]


@dataclass(frozen=True)
class PinnedInput:
    """One input of a step.

    Attributes:
        role: What the step takes from it.
        name: Name of the entry that it belongs to; for a data set, its path.
        reference: Reference in the recipe.
        repo: Repo on the Hub, owner/name; None for a local folder.
        folder: Folder in the repo, empty for the top.
        commit: Commit of 40 hex digits, or `sha256:` and the digest of a local folder.
        step: Step that merges it; None for the base model and for data sets. In a stage, the number of the model.
        stage: Stage that merges it, before the step; None for an input of the step itself.
    """

    role: Role
    name: str
    reference: str
    repo: str | None
    folder: str
    commit: str
    step: int | None = None
    stage: str | None = None

    @property
    def kind(self) -> Literal["model", "dataset"]:
        """Kind of the repo."""
        return "dataset" if self.role == "data set" else "model"

    @property
    def address(self) -> str | None:
        """Address in the form of the Hub's client: `hf://owner/name@commit/folder`; None for a local folder."""
        if self.repo is None:
            return None
        place = f"datasets/{self.repo}" if self.kind == "dataset" else self.repo
        return f"hf://{place}@{self.commit}" + (f"/{quote(self.folder)}" if self.folder else "")

    @property
    def digest(self) -> dict[str, str]:
        """Digest in the form of in-toto: that of git's commit, or the SHA-256 over the files of a local folder."""
        if is_commit(self.commit):
            return {"gitCommit": self.commit}
        return {"sha256": self.commit.removeprefix("sha256:")}


def pinned_inputs(lock: Lock, report: RunReport) -> tuple[PinnedInput, ...]:
    """Return the inputs of the last step of a report, without checkpoints and data sets of later steps.

    Args:
        lock: The lock of the stream.
        report: The report of the step.
    """
    models = [*_of_model(lock.base_model, "base model", None)]
    if lock.tokenizer is not None:
        models += _of_model(lock.tokenizer, "tokenizer", None)
    for step, locked in enumerate(lock.models[: len(report.models)], start=1):
        models += _of_model(locked, "checkpoint", step)
    for stage in lock.stages:
        inner = [*_of_model(stage.base_model, "base model", None)]
        if stage.tokenizer is not None:
            inner += _of_model(stage.tokenizer, "tokenizer", None)
        for number, locked in enumerate(stage.models, start=1):
            inner += _of_model(locked, "checkpoint", number)
        models += [replace(one, stage=stage.name) for one in inner]
    scored = {(one.path, one.commit) for task in report.tasks for one in task.data}
    read = report.steps[-1].read if report.steps else None
    scored |= {(one.path, one.commit) for one in read.data} if read is not None else set()
    datasets: dict[tuple[str, str], PinnedInput] = {}
    for data in lock.datasets:
        if (data.path, data.commit) in scored:
            repo = None if is_local_path(data.path) else data.path
            reference = data.path if data.revision is None else f"{data.path}@{data.revision}"
            found = PinnedInput("data set", data.path, reference, repo, "", data.commit)
            datasets.setdefault((data.path, data.commit), found)
    return (*models, *datasets.values())


@lru_cache(CACHED_INPUTS)
def _of_model(locked: LockedModel, role: Role, step: int | None) -> tuple[PinnedInput, ...]:
    """Return a model and its adapter."""
    reference = locked.reference
    model = _input(role, locked.name, reference, locked.commit, step)
    if reference.adapter is None or locked.adapter_commit is None:
        return (model,)
    return (model, _input("adapter", locked.name, reference.adapter, locked.adapter_commit, step))


def _input(role: Role, name: str, reference: ModelReference, commit: str, step: int | None) -> PinnedInput:
    repo = None if reference.is_local else reference.path
    return PinnedInput(role, name, _alone(reference), repo, reference.subfolder or "", commit, step)


def _alone(reference: ModelReference) -> str:
    """Return a reference as text, without its adapter."""
    text = str(reference)
    return text if reference.adapter is None else text.removesuffix(f"+{reference.adapter}")
