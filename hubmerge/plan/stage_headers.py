"""Merged models of stages as a plan needs them: folders with config, card and the headers of the weights alone."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from hubmerge.checkpoints.formats.layout import CONFIG_FILE
from hubmerge.checkpoints.formats.write_header import lay_out
from hubmerge.hub import fetch
from hubmerge.plan.licenses import plan_licenses
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.preflight import Preflight, check_before_merge
from hubmerge.plan.run_plan import RunPlan
from hubmerge.report.report import RunReport
from hubmerge.stream.sources import Source, files_of
from hubmerge.stream.stages import StageModel
from hubmerge.stream.stream import Stream
from hubmerge.support.names import CARD_FILE
from hubmerge.support.progress import Progress

MAX_AUXILIARY_BYTES = 64 << 20
"""Size up to which a file beside the weights is copied."""

_WEIGHTS = "model.safetensors"


@contextmanager
def planned_stages(stream: Stream, progress: Progress) -> Iterator[tuple[Stream, tuple[RunPlan, ...]]]:
    """Plan the stages of a stream, and give the stream with models that have headers alone.

    Args:
        stream: The stream.
        progress: Receiver of stages.

    Raises:
        CheckpointError: The models of a stage do not fit together.
        HubError: A file is missing, or may not be read.
    """
    if not stream.stages:
        yield stream, ()
        return
    plans = []
    with tempfile.TemporaryDirectory(prefix="hubmerge-plan-") as home:
        for number, stage in enumerate(stream.stages):
            inner = stream.of_stage(stage)
            plan = plan_steps(inner, 1, progress)
            plan = replace(plan, licenses=plan_licenses(inner))
            folder = Path(home) / f"{number}-{stage.name}"
            folder.mkdir()
            _write_headers(plan, inner.base, folder)
            stream = replace(stream, stage_models={**stream.stage_models, stage.name: StageModel(folder, stage.digest)})
            plans.append(plan)
        yield stream, tuple(plans)


def check_with_stages(stream: Stream, first: int, recorded: RunReport, progress: Progress) -> Preflight:
    """Check tasks, permission, licenses and target before a run merges anything, also its stages.

    Args:
        stream: The stream.
        first: First missing step.
        recorded: Report of the steps that are published or on disk.
        progress: Receiver of stages.

    Raises:
        HubmergeError: There is a mistake, or a `CombinedError` of several.
    """
    with planned_stages(stream, progress) as (planned, _):
        plan = partial(plan_steps, planned, first, progress, recorded=recorded)
        read_licenses = partial(plan_licenses, planned, recorded)
        return check_before_merge(planned, progress, plan, read_licenses, recorded=recorded, needs_token=True)


def _write_headers(plan: RunPlan, base: Source, folder: Path) -> None:
    """Write a folder that is planned with like the merged model: the weights are a hole behind their header."""
    for name, content in _auxiliary_files(base):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name, changed in plan.tokenizer_files.items():
        (folder / name).unlink(missing_ok=True)
        if changed is not None:
            (folder / name).write_bytes(changed)
    (folder / CONFIG_FILE).write_text(json.dumps(dict(plan.config)), encoding="utf-8", newline="\n")
    merged = plan.licenses.merged.to_metadata()
    (folder / CARD_FILE).write_text(
        f"---\n{json.dumps(merged)}\n---\n" if merged else "", encoding="utf-8", newline="\n"
    )
    specs = list(plan.written.specs)
    header, _ = lay_out(specs, {"format": "pt"})
    with (folder / _WEIGHTS).open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + sum(spec.nbytes for spec in specs))


def _auxiliary_files(base: Source) -> Iterator[tuple[str, bytes]]:
    """Yield the small files beside the weights of a base model, such as tokenizer and processor."""
    weights = {file.path for file in files_of(base)}
    for file in files_of(base, auxiliary=True):
        if file.path not in weights and file.size <= MAX_AUXILIARY_BYTES:
            if base.is_local:
                yield file.path, (Path(base.reference.path) / file.path).read_bytes()
            else:
                yield base.name_of(file), fetch.read_file(base.reference.path, base.commit, file)
