"""Put a step's folder together around its weights, and check it before anybody sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import TensorSpec, open_checkpoint
from hubmerge.checkpoints.formats.layout import CONFIG_FILE
from hubmerge.errors import CheckpointError
from hubmerge.methods import method_named
from hubmerge.plan.layout_text import written_layout
from hubmerge.plan.run_plan import selection_of
from hubmerge.report.report import RunReport
from hubmerge.stream.sources import local_auxiliary_files
from hubmerge.stream.stream import Stream
from hubmerge.support.names import CARD_FILE, LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE

_OWN = frozenset({CONFIG_FILE, CARD_FILE})


def copy_auxiliary_files(base_folder: Path, folder: Path) -> None:
    """Copy the base model's tokenizer, processor, generation, template, module and licence files, byte for byte."""
    for name in sorted(local_auxiliary_files(base_folder) - _OWN):
        if not name.startswith("hubmerge."):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base_folder / name, folder / name)


def write_config(config: Mapping[str, Any], folder: Path, *, out_dtype: str | None) -> None:
    """Write config.json: the given one, with the dtype that the weights are written in."""
    written = dict(config)
    if out_dtype is not None:
        written.pop("torch_dtype", None)
        written["dtype"] = out_dtype
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_written(folder: Path, specs: Collection[TensorSpec]) -> None:
    """Check that the weights in the folder have the names, dtypes and shapes that were planned, and checked to load.

    Raises:
        CheckpointError: naming a tensor that differs.
    """
    with open_checkpoint(folder, "the merged model") as written:
        found = {info.spec for info in written.tensors.values()}
    if found != set(specs):
        differing = min(spec.name for spec in found ^ set(specs))
        raise CheckpointError(
            f"the merged model in {folder} is not what was to be written: tensor {differing!r} differs",
            hint="check the disk, and run again with another --work-dir",
        )


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return the class of transformers that a config names, None where it names none."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) and first.isidentifier() else None


def write_metadata_files(folder: Path, report: RunReport, stream: Stream, base_folder: Path) -> None:
    """Write what tells where the model comes from: recipe, lock, report, and the card with its picture."""
    from hubmerge.cards import accuracy_picture  # matplotlib takes a second to import

    wanted = stream.recipe.publish
    with open_checkpoint(folder) as written:
        architecture = architecture_of(written.config)
        layout = written_layout(written.config, written.tensors, selection_of(stream.recipe))
    card = card_for(
        report,
        stream,
        stream.loaded.text,
        files={path.name for path in folder.iterdir()},
        architecture=architecture,
        layout=layout,
        licence=(wanted.license if wanted is not None else None) or licence_of(base_folder),
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    matrix = report.accuracy_matrix()
    if matrix.steps:
        picture = accuracy_picture(
            matrix,
            base=report.main_scores(report.base_scores),
            own=report.main_scores(report.own_scores),
            names={step.step: step.name for step in report.steps},
        )
        (folder / PICTURE_FILE).write_bytes(picture)
    (folder / RECIPE_FILE).write_text(stream.loaded.text, encoding="utf-8")
    (folder / LOCK_FILE).write_text(stream.lock.to_yaml(), encoding="utf-8")
    (folder / REPORT_FILE).write_text(report.to_json(), encoding="utf-8")


def card_for(
    report: RunReport,
    stream: Stream,
    recipe_text: str,
    *,
    files: Collection[str],
    architecture: str | None,
    layout: str,
    licence: str | None,
) -> str:
    """Return the card of a step whose folder holds `files`, of a model of the class `architecture` in that `layout`."""
    from hubmerge.cards import card_text

    wanted = stream.recipe.publish
    kinds = {task.kind for task in report.tasks}
    whole = wanted is None or wanted.model == "full"
    return card_text(
        report,
        recipe_text=recipe_text,
        repo=wanted.repo if wanted is not None else None,
        license=licence,
        tags=wanted.tags if wanted is not None else (),
        model_class=architecture or "AutoModel",
        layout=layout,
        processor_class="AutoProcessor" if "preprocessor_config.json" in files else None,
        pipeline_tag=kinds.pop() if whole and len(kinds) == 1 else None,
        picture=PICTURE_FILE if report.accuracy_matrix().steps else None,
        every_step=wanted is None or wanted.steps == "every",
        method_source=method_named(report.merge_method).source,
    )


def licence_of(base_folder: Path) -> str | None:
    """Return the licence that the base model's card names, None if it names none."""
    card = base_folder / CARD_FILE
    if not card.is_file():
        return None
    from hubmerge.cards import license_of

    return license_of(card.read_text(encoding="utf-8", errors="replace"))
