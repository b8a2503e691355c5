"""Functions that open an adapter in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.adapters.adapter import Adapter
from hubmerge.checkpoints.adapters.pipeline_adapter import PipelineAdapter
from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, ADAPTER_FILES, LORA_FILES, read_json_object
from hubmerge.checkpoints.formats.weight_file import open_weight_file
from hubmerge.checkpoints.origin import Origin


def base_model_of(config: Mapping[str, Any]) -> str | None:
    """Return the repo or path of the model that an adapter was trained on, None if its config does not have it."""
    name = config.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def read_adapter_config(folder: Path, origin: Origin) -> dict[str, Any]:
    """Return the content of adapter_config.json.

    Raises:
        CheckpointError: there is none, or it is not valid.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise origin.error(f"not an adapter: no {ADAPTER_CONFIG}", hint="name a LoRA adapter")
    return read_json_object(path.read_bytes(), origin.in_file(ADAPTER_CONFIG))


def open_adapter(folder: Path, origin: Origin | str | None = None) -> Adapter | PipelineAdapter:
    """Open the adapter in a folder.

    Args:
        folder: a folder with adapter_config.json and the weights of an adapter of peft, or with the file of diffusers.
        origin: the adapter's place, or only its name in messages; the folder if left out.

    Raises:
        CheckpointError: there is no adapter, or one of a kind that cannot be merged.
    """
    origin = Origin(str(folder), folder=folder) if origin is None else Origin.of(origin)
    if not (folder / ADAPTER_CONFIG).is_file():
        file = next((name for name in LORA_FILES if (folder / name).is_file()), None)
        if file is not None:
            source, tensors, metadata = open_weight_file(folder / file, origin.in_file(file))
            return PipelineAdapter(Checkpoint(origin, tensors, {}, {file: source}, metadata=metadata))
    config = read_adapter_config(folder, origin)
    file = next((name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if file is None:
        raise origin.error(f"no {' or '.join(ADAPTER_FILES)}", hint="save the adapter with save_pretrained()")
    source, tensors, _ = open_weight_file(folder / file, origin.in_file(file))
    return Adapter(Checkpoint(origin, tensors, config, {file: source}))
