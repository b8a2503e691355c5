"""Put a step's folder together around its weights, and check it before anybody sees it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubmerge.errors import CheckpointError
from hubmerge.hub.fetch import wanted_files
from hubmerge.hub.publish import LOCK_FILE, RECIPE_FILE, REPORT_FILE
from hubmerge.report import RunReport
from hubmerge.sources import folder_files
from hubmerge.stream import Stream

CONFIG_FILE = "config.json"
_OWN = frozenset({CONFIG_FILE, "README.md"})
_WEIGHTS = (".safetensors", ".bin", ".index.json")


def copy_companions(base_folder: Path, folder: Path) -> None:
    """Copy the base model's tokenizer, processor, generation and licence files, byte for byte."""
    for file in wanted_files(folder_files(base_folder), companions=True):
        if file.path not in _OWN and not file.path.endswith(_WEIGHTS) and not file.path.startswith("hubmerge."):
            shutil.copyfile(base_folder / file.path, folder / file.path)


def write_config(config: Mapping[str, Any], folder: Path, *, out_dtype: str | None) -> None:
    """Write config.json: the given one, with the dtype that the weights are written in."""
    written = dict(config)
    if out_dtype is not None:
        written.pop("torch_dtype", None)
        written["dtype"] = out_dtype
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_loads(folder: Path) -> None:
    """Check that transformers finds every weight it expects in the folder, and no other.

    The model is built on the meta device, so nothing is read into memory.

    Raises:
        CheckpointError: weights are missing, left over or of another shape, or the class is not in transformers.
    """
    import transformers

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    names = [name for name in config.get("architectures") or [] if hasattr(transformers, name)]
    model_class = getattr(transformers, names[0]) if names else transformers.AutoModel
    try:
        _, found = model_class.from_pretrained(folder, output_loading_info=True, device_map="meta")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the merged model does not load in transformers: {error}",
            hint="check that config.json of the base model fits its weights",
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[kind]:
            raise CheckpointError(
                f"the merged model does not load whole: {kind.replace('_', ' ')}: {sorted(map(str, found[kind]))[:3]}",
                hint="check that config.json of the base model fits its weights",
            )


def write_papers(folder: Path, report: RunReport, stream: Stream, base_folder: Path) -> None:
    """Write what tells where the model comes from: recipe, lock, report, card and the picture in the card."""
    (folder / RECIPE_FILE).write_text(stream.loaded.text, encoding="utf-8")
    (folder / LOCK_FILE).write_text(stream.lock.to_yaml(), encoding="utf-8")
    (folder / REPORT_FILE).write_text(report.to_json(), encoding="utf-8")
