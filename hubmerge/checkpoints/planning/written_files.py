"""Names and metadata of the weight files of a merged model: those of the base model."""

from __future__ import annotations

from collections.abc import Iterable

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.planning.merge_plan import PlannedTensor
from hubmerge.checkpoints.weight_names import TRANSFORMERS, WeightNames

_FORMAT = {"format": "pt"}
_OF_ONE_FILE = ("hash", "sha256", "checksum", "total_size")
"""Words in keys whose values are right for the base model's bytes only."""


def written_names(base: Checkpoint, tensors: Iterable[PlannedTensor]) -> WeightNames:
    """Return the names of the weight files to be written.

    A variant such as `fp16` is left out if tensors are written in another dtype than the base model's.

    Args:
        base: the base model.
        tensors: the tensors to be written.
    """
    cast = any(tensor.dtype != tensor.out_dtype for tensor in tensors)
    return base.names.of_variant(None) if cast else base.names


def written_metadata(base: Checkpoint) -> dict[str, str]:
    """Return the free text for the header of each file: that of the base model's files, with the format `pt`.

    Hashes and sizes are left out. Files with the names of transformers have the format alone.
    """
    if base.names.stem == TRANSFORMERS.stem:
        return dict(_FORMAT)
    kept = {key: text for key, text in base.metadata.items() if not any(word in key.lower() for word in _OF_ONE_FILE)}
    return {**kept, **_FORMAT}
