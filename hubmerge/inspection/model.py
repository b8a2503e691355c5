"""Description of a checkpoint, a published stream or a state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hubmerge.cards.data import front_matter
from hubmerge.cards.markup import one_line
from hubmerge.checkpoints import Checkpoint, open_checkpoint
from hubmerge.executor.state import MergeState, load_state
from hubmerge.hub import fetch, states
from hubmerge.hub.offline import is_offline
from hubmerge.inspection.places import ModelPlace, is_state
from hubmerge.linalg import frobenius_norm, total_norm
from hubmerge.methods.moments.base import STATE as MOMENTS
from hubmerge.methods.readers import readers_of
from hubmerge.plan.layout_text import written_layout
from hubmerge.report.report import RunReport, StepReport
from hubmerge.stream.sources import Source
from hubmerge.support.names import (
    ACCUMULATED_FILE,
    CARD_FILE,
    MANIFEST_FILE,
    PARTS_FILE,
    REPORT_FILE,
    STATE_FOLDER,
    step_tag,
)
from hubmerge.support.text import counted, readable, short_commit
from hubmerge.verify.published import Published, open_published


@dataclass(frozen=True)
class MergedEntry:
    """One step of a stream.

    Attributes:
        step: its number, from 1.
        name: the name of the entry.
        reference: the repo or folder.
        commit: its commit.
        task_vector_norm: the norm of its task vector, None if it was not measured.
        revokes: the entry that the step takes out, None for a step that merges one.
    """

    step: int
    name: str
    reference: str
    commit: str
    task_vector_norm: float | None = None
    revokes: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint, a published stream or a state is; `str()` of it is a text.

    Attributes:
        kind: "checkpoint", "stream" or "state".
        place: the repo with its commit, or the folder.
        layout: the class, the tensor names and the dtypes, in words; empty for a state.
        dtypes: the number of elements by dtype.
        tensors: the number of tensors.
        bytes: the size of the tensors.
        norm: the Frobenius norm of all floating-point tensors together; None if no values were read.
        method: the merge method of a stream or a state.
        step: the number of merged steps.
        base_model: the base model of a stream, with its commit.
        entries: the steps of a stream.
        accumulated_norm: the norm of the accumulated delta.
        scale: what it is divided by.
        state_bytes: the size of the state of the last step; None if there is none.
        parts: the names of what a state has besides the accumulated delta.
        made_from: the base models that the card of a checkpoint names.
        relation: how it was made from them, as its card says: "merge", "finetune", "adapter" or "quantized".
        read_by: the choice of the method that read the model of the last step; None if the recipe left none.
    """

    kind: str
    place: str
    layout: str
    dtypes: Mapping[str, int]
    tensors: int
    bytes: int
    norm: float | None = None
    method: str | None = None
    step: int | None = None
    base_model: str | None = None
    entries: tuple[MergedEntry, ...] = ()
    accumulated_norm: float | None = None
    scale: float | None = None
    state_bytes: int | None = None
    parts: tuple[str, ...] = field(default=())
    made_from: tuple[str, ...] = ()
    relation: str | None = None
    read_by: str | None = None

    @property
    def parameters(self) -> int:
        """The number of elements of all tensors."""
        return sum(self.dtypes.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        return {**asdict(self), "parameters": self.parameters}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.kind} {self.place}"
        if self.layout:
            yield f"layout      {self.layout}"
        dtypes = ", ".join(f"{name} {count:,}" for name, count in self.dtypes.items())
        yield f"parameters  {self.parameters:,} in {counted(self.tensors, 'tensor')} ({dtypes}), {readable(self.bytes)}"
        if self.norm is not None:
            yield f"norm        {self.norm:.6g}"
        if self.made_from and self.method is None:
            relation = "" if self.relation is None else f" ({self.relation})"
            yield f"made from   {', '.join(self.made_from)}{relation}, says its card"
        if self.method is not None:
            base = "" if self.base_model is None else f", on {self.base_model}"
            yield f"merged      by {_by(self.method)}, {counted(self.step or 0, 'step')}{base}"
        if self.read_by is not None:
            yield f"read by     {self.read_by}"
        for entry in self.entries:
            norm = "" if entry.task_vector_norm is None else f"  norm {entry.task_vector_norm:.6g}"
            taken = "" if entry.revokes is None else f"  takes out {entry.revokes}"
            source = f"   {entry.name}  {entry.reference} at {short_commit(entry.commit)}" if entry.name else ""
            yield f"  step {entry.step:>2}{source}{norm}{taken}"
        if self.accumulated_norm is not None:
            yield f"delta       norm {self.accumulated_norm:.6g}, divided by {self.scale or 1.0:.6g}"
        if self.parts:
            yield f"parts       {', '.join(self.parts)}"
        if self.kind == "stream":
            size = "none" if self.state_bytes is None else readable(self.state_bytes)
            yield f"state       {size}"


def inspect_model(place: str, *, norms: bool = False) -> Inspection:
    """Describe a checkpoint, a stream or a state.

    Args:
        place: a folder, or `owner/name@revision`. A folder with `state.json` is a state; a folder or repo with
            `hubmerge.json` is a stream.
        norms: download the weights of a repo to compute their norm, which is always computed for folders.

    Raises:
        HubError: the repo or the revision is missing, or its files cannot be read.
        CheckpointError: the files are not a model.
    """
    folder = Path(place)
    if folder.is_dir():
        if (folder / MANIFEST_FILE).is_file() and (folder / ACCUMULATED_FILE).is_file():
            return _of_state(load_state(folder))
        published = open_published(folder, None) if (folder / REPORT_FILE).is_file() else None
        if published is not None:
            with open_checkpoint(folder) as model:
                return _of_checkpoint(model, published, norms=True)
        file = folder / CARD_FILE
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        with ModelPlace.find(place).open(weights=True) as model:
            return _of_checkpoint(model, None, norms=True, card=text)
    found = ModelPlace.find(place)
    published, card = None, ""
    source = found.source
    if not source.is_local and source.adapter is None:
        names = {file.path for file in fetch.list_files(source.reference.path, source.commit, source.subfolder)}
        published = open_published(source.reference.path, source.commit) if REPORT_FILE in names else None
        card = _hub_card(source)
    with found.open(weights=norms) as model:
        return _of_checkpoint(model, published, norms=norms or found.source.is_local, card=card)


def _hub_card(source: Source) -> str:
    """Return the card of a repo, an empty text if it has none."""
    if source.subfolder:
        return ""
    content = fetch.read_checked(source.reference.path, source.commit, CARD_FILE)
    return "" if content is None else content.decode("utf-8", errors="replace")


def _of_checkpoint(model: Checkpoint, published: Published | None, *, norms: bool, card: str = "") -> Inspection:
    infos = model.tensors.values()
    dtypes: dict[str, int] = {}
    for info in infos:
        name = str(info.model_dtype or info.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + math.prod(info.shape)
    described = Inspection(
        kind="checkpoint" if published is None else "stream",
        place=model.label,
        layout=written_layout(model.config, model.tensors),
        dtypes=dict(sorted(dtypes.items(), key=lambda item: -item[1])),
        tensors=len(infos),
        bytes=sum(info.nbytes for info in infos),
        norm=_norm(model) if norms else None,
        **_made_from(card if published is None else ""),
    )
    return described if published is None else _with_report(described, published)


def _made_from(card: str) -> dict[str, Any]:
    """Return what a card says about the base models and the relation to them."""
    metadata = front_matter(card)
    named, relation = metadata.get("base_model"), metadata.get("base_model_relation")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    return {
        "made_from": tuple(one_line(name) for name in names if isinstance(name, str)),
        "relation": one_line(relation) if isinstance(relation, str) else None,
    }


def _norm(model: Checkpoint) -> float:
    names = [name for name, info in model.tensors.items() if info.dtype.is_floating_point]
    return total_norm(frobenius_norm(model.read(name).double()) for name in names)


def _with_report(described: Inspection, published: Published) -> Inspection:
    report: RunReport = published.report
    last, base = report.steps[-1], report.base_model
    digest = last.state_digest
    known = digest is not None and not published.files.is_alone and not is_offline()
    place = described.place
    if published.files.folder is None:
        place = f"{published.repo}@{step_tag(last.step)} ({short_commit(published.files.commit)})"
    return Inspection(
        **{**_fields(described), "place": place},
        method=report.merge_method,
        read_by=None if last.read is None else last.read.text,
        step=last.step,
        base_model=f"{base.reference} at {short_commit(base.commit)}",
        entries=_entries(report),
        accumulated_norm=last.accumulated_norm,
        scale=last.scale,
        state_bytes=states.state_bytes(published.repo, digest) if known and digest is not None else _beside(published),
    )


def _beside(published: Published) -> int | None:
    """Return the size of the state in the folder of a stream; None if there is none."""
    folder = published.files.folder
    return None if folder is None or not is_state(str(folder / STATE_FOLDER)) else _size(folder / STATE_FOLDER)


def _size(state: Path) -> int:
    files = [state / name for name in (ACCUMULATED_FILE, PARTS_FILE, MANIFEST_FILE)]
    return sum(file.stat().st_size for file in files if file.is_file())


def _fields(described: Inspection) -> dict[str, Any]:
    names = ("kind", "place", "layout", "dtypes", "tensors", "bytes", "norm")
    return {name: getattr(described, name) for name in names}


def _entries(report: RunReport) -> tuple[MergedEntry, ...]:
    if report.is_joint:
        step = report.steps[-1].step
        return tuple(MergedEntry(step, one.name, one.reference, one.commit) for one in report.models)
    return tuple(map(_entry, report.steps))


def _entry(step: StepReport) -> MergedEntry:
    return MergedEntry(step.step, step.name, step.reference, step.commit, step.task_vector_norm, step.revokes)


def _of_state(state: MergeState) -> Inspection:
    manifest = state.manifest
    shapes = state.shapes()
    elements = sum(map(math.prod, shapes.values()))
    size = _size(state.folder)
    return Inspection(
        kind="state",
        place=str(state.folder),
        layout="",
        dtypes={manifest.dtype: elements},
        tensors=len(shapes),
        bytes=size,
        method=manifest.method,
        step=manifest.step,
        entries=tuple(
            MergedEntry(number, "", "", "", norm) for number, norm in enumerate(manifest.task_vector_norms, start=1)
        ),
        accumulated_norm=manifest.accumulated_norm,
        scale=manifest.scale,
        state_bytes=size,
        parts=tuple(sorted({key.partition("/")[0] for key in manifest.parts})),
    )


def _by(method: str) -> str:
    """Return a method in words: the state of several methods over moments does not say which of them merged it."""
    return f"a method over moments ({', '.join(readers_of(method))})" if method == MOMENTS else method
