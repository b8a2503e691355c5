"""LoRA adapters as pipelines of diffusers save them: one file with changes for several models of the pipeline.

The names begin with the model (`unet.`, `transformer.`, `text_encoder.`) unless one model alone saved the file. The
factors have the names of peft (`lora_A`, `lora_B`) or older ones. The settings are in the header of the file; without
them, a change is B A.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from hubmerge.checkpoints.adapters.adapter import Adapter
from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.names import best_renamings, parameter_shapes
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed

SETTINGS = "lora_adapter_metadata"
"""Key of the settings in the header of a file."""

_MODEL = re.compile(r"(?P<model>(?:unet|transformer|text_encoder|text_conditioner|connectors|prior)(?:_\d+|_ref)?)\.")
_FACTOR = re.compile(r"\.(?:lora|lora_linear_layer)\.(?P<which>down|up)\.weight")
_PROCESSOR = re.compile(r"\.to_(?P<layer>q|k|v|out)_lora\.(?P<which>down|up)\.weight")
_WHICH = {"down": "lora_A", "up": "lora_B"}
_OF_TEXT = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "out_proj"}
_OF_IMAGE = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_OTHER_KINDS = {
    "lora_magnitude_vector": "DoRA",
    "dora_scale": "DoRA",
    ".lokr_": "LoKr",
    ".hada_": "LoHa",
    ".diff.": "whole differences",
    ".diff_b.": "whole differences",
    ".bias.": "LoRA with biases",
}
_FUSE = "load it into its pipeline with load_lora_weights(), call fuse_lora(), save the model and name the result"
_CONVERT = (
    "load it into its pipeline with load_lora_weights() and save it again: pipe.unet.save_lora_adapter(folder), or "
    "pipe.transformer.save_lora_adapter(folder)"
)


class PipelineAdapter:
    """An adapter for the models of a pipeline.

    Attributes:
        files: the tensors in its file.
        origin: its place.

    Raises:
        CheckpointError: the adapter is of a kind that cannot be merged.
    """

    def __init__(self, files: Checkpoint) -> None:
        self.files = files
        self.origin = files.origin
        found: dict[str, dict[str, str]] = {}
        for stored in files.tensors:
            _check_kind(stored, files.origin)
            model = _MODEL.match(stored)
            part = model["model"] if model is not None else ""
            found.setdefault(part, {})[_in_peft(stored.removeprefix(f"{part}."), part)] = stored
        self._settings = _settings(files)
        self._names = found

    def for_model(self, model: Checkpoint) -> Adapter:
        """Return the adapter for one model: the changes of that model of the pipeline whose layers it has.

        Raises:
            CheckpointError: the changes are for another model, or fit it in more than one way.
        """
        adapters = {part: self._adapter(part) for part in self._names}
        shares = {part: _share(adapter, model) for part, adapter in adapters.items()}
        best = max(shares.values(), default=0.0)
        fitting = [part for part, share in shares.items() if share == best]
        folder = model.label.partition("@")[0].rpartition("/")[2]
        part = folder if folder in fitting else fitting[0] if len(fitting) == 1 else None
        if best == 0.0 or part is None:
            raise self._unfitting(model, fitting if best else None)
        chosen = adapters[part]
        others = [other for other in self._names if other != part]
        if others:
            chosen.notes = (
                f"{self.origin}: its changes of {listed(others)} are for other models of the pipeline: not merged",
            )
        return chosen

    def _adapter(self, part: str) -> Adapter:
        names = self._names[part]
        prefix = f"{part}." if part else ""
        settings = {key.removeprefix(prefix): value for key, value in self._settings.items() if key.startswith(prefix)}
        renamed = RenamedCheckpoint(self.files, names, {"peft_type": "LORA", **settings})
        return Adapter(renamed, scaled="lora_alpha" in settings)

    def _unfitting(self, model: Checkpoint, fitting: list[str] | None) -> CheckpointError:
        parts = listed([part or "a model without a name" for part in self._names])
        if fitting is None:
            return self.origin.error(
                f"its changes are for {parts} of a pipeline, and {model.label} has none of the changed layers",
                hint="write the folder of the changed model in front of it: owner/pipeline/unet+owner/lora",
            )
        return self.origin.error(
            f"its changes of {listed(fitting)} fit {model.label} equally well",
            hint=f"write the folder of the changed model in front of it: owner/pipeline/{fitting[0]}+owner/lora",
        )

    def close(self) -> None:
        """Close the file."""
        self.files.close()


class RenamedCheckpoint(Checkpoint):
    """The tensors of a file under other names; `names` are new names and names in the file."""

    def __init__(self, files: Checkpoint, names: Mapping[str, str], config: Mapping[str, Any]) -> None:
        tensors = {name: replace(files.tensors[stored], name=name) for name, stored in names.items()}
        super().__init__(files.origin, tensors, config, {}, notes=files.notes)
        self._files, self._stored = files, dict(names)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype and shape."""
        return self._files.read(self._stored[name])

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors have equal values, as far as they can be read now."""
        return self._files.has_equal_values(self._stored[first], self._stored[second])

    def close(self) -> None:
        """Close the file."""
        self._files.close()


def _in_peft(name: str, part: str) -> str:
    """Return the name that peft gives to a factor which has an older name.

    >>> _in_peft("mid.attn1.processor.to_out_lora.down.weight", "unet"), _in_peft("a.q_proj.lora.up.weight", "")
    ('mid.attn1.to_out.0.lora_A.weight', 'a.q_proj.lora_B.weight')
    """
    name = name.replace(".processor.", ".")
    layers = _OF_TEXT if part.startswith("text_encoder") else _OF_IMAGE
    name = _PROCESSOR.sub(lambda found: f".{layers[found['layer']]}.{_WHICH[found['which']]}.weight", name)
    return _FACTOR.sub(lambda found: f".{_WHICH[found['which']]}.weight", name)


def _check_kind(name: str, origin: Origin) -> None:
    """Refuse a tensor that is no factor of a LoRA in the naming of diffusers."""
    kind = next((kind for part, kind in _OTHER_KINDS.items() if part in f"{name}."), None)
    if kind is not None:
        raise origin.error(
            f"tensor {name!r} belongs to an adapter of type {kind}, only LoRA can be merged", hint=_FUSE, tensor=name
        )
    if "lora_A" not in name and "lora_B" not in name and not (_FACTOR.search(name) or _PROCESSOR.search(name)):
        raise origin.error(
            f"tensor {name!r} does not have the name of a LoRA factor in diffusers (`.lora_A.weight`, "
            "`.lora.down.weight`)",
            hint=_CONVERT,
            tensor=name,
        )


def _settings(files: Checkpoint) -> dict[str, Any]:
    """Return the settings in the header of the file, empty if there are none."""
    try:
        found = json.loads(files.metadata.get(SETTINGS, "{}"))
    except (ValueError, RecursionError) as error:
        raise files.origin.error(
            f"{SETTINGS} in the header is not valid JSON: {error}", hint="save the adapter again"
        ) from error
    return found if isinstance(found, dict) else {}


def _share(adapter: Adapter, model: Checkpoint) -> float:
    """Return the share of the changed layers that a model has."""
    names = {f"{change.module}.weight": change.shape for change in adapter.changes}
    targets = parameter_shapes(model.tensors)
    renaming = best_renamings(names, targets)[0]
    return sum(targets.get(renaming.target(name, targets) or "") == shape for name, shape in names.items()) / len(names)
