"""Models for one task: the merged model with the head of one of its checkpoints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.checkpoints import SafetensorsReader, open_checkpoint
from hubmerge.checkpoints.formats.layout import read_json_object
from hubmerge.checkpoints.model_class.class_lookup import config_folder, without_code
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.weight_names import is_timm
from hubmerge.errors import CheckpointError
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import HEADS_FOLDER, head_files
from hubmerge.support.text import listed

if TYPE_CHECKING:
    import torch


def load_with_head(folder: Path, entry: str) -> Any:
    """Return a merged model with the head of an entry, as a model of transformers or timm in evaluation mode.

    Args:
        folder: the folder of the merged model.
        entry: the name of the entry in the recipe.

    Raises:
        CheckpointError: there is no head of this name, or its files are damaged or of another library.
    """
    import transformers

    tensors, described = (folder / name for name in head_files(entry))
    origin = Origin(str(folder), folder=folder).in_file(f"{HEADS_FOLDER}/{described.name}")
    if not (tensors.is_file() and described.is_file()):
        found = sorted(path.stem for path in (folder / HEADS_FOLDER).glob("*.json"))
        raise origin.error(f"there is no head {entry!r}", hint=f"heads of this model: {listed(found) or 'none'}")
    facts = read_json_object(described.read_bytes(), origin)
    if facts.get("sha256") != file_digest(tensors):
        raise origin.error(f"{tensors.name} does not match the digest", hint="fetch both files of the head again")
    with open_checkpoint(folder) as merged:
        config = {**merged.config, **facts.get("config", {})}
        values = {name: merged.read(name) for name in merged.tensors}
    head = SafetensorsReader(tensors)
    values |= {name: head.read(info) for name, info in head.header.tensors.items()}
    head.close()
    if is_timm(config):
        return _timm_model(config, values)
    model_class = getattr(transformers, str(facts.get("architecture")), None)
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        raise _other_library(origin, facts.get("architecture"), tensors)
    return _transformers_model(model_class, {**config, "architectures": [model_class.__name__]}, values)


def _transformers_model(model_class: Any, config: dict[str, Any], values: dict[str, torch.Tensor]) -> Any:
    """Build a model from its config and all its values; the head of the base model is not used."""
    with config_folder(without_code(config)) as folder:
        model = model_class.from_pretrained(
            None, config=folder, state_dict=values, local_files_only=True, trust_remote_code=False
        )
    return model.eval()


def _timm_model(config: dict[str, Any], values: dict[str, torch.Tensor]) -> Any:
    timm: Any = importlib.import_module("timm")
    with config_folder(config) as folder:
        model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    model.load_state_dict(values)
    return model.eval()


def _other_library(origin: Origin, architecture: object, tensors: Path) -> CheckpointError:
    return origin.error(
        f"transformers has no class {architecture!r}",
        hint=f'read the tensors of the head: safetensors.torch.load_file("{tensors}")',
    )
