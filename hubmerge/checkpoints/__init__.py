"""Checkpoints: reading, naming, planning and writing, one tensor at a time.

Each name is loaded when it is first used: `hubmerge outdated` needs places and file names, but no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_recipes.lazy_names import load_names

if TYPE_CHECKING:
    from hubmerge.checkpoints.adapters.adapted import AdaptedCheckpoint
    from hubmerge.checkpoints.adapters.adapter import Adapter
    from hubmerge.checkpoints.adapters.open_adapter import (
        base_model_of,
        open_adapter,
        read_adapter_config,
    )
    from hubmerge.checkpoints.adapters.pipeline_adapter import PipelineAdapter
    from hubmerge.checkpoints.checkpoint import Checkpoint, HeaderOnly, TensorSource
    from hubmerge.checkpoints.formats.header import Header, parse_header
    from hubmerge.checkpoints.formats.layout import WeightFiles, choose_weights, find_weights, read_index
    from hubmerge.checkpoints.formats.partial_file import FetchBytes, create_partial_file, is_partial_file
    from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
    from hubmerge.checkpoints.formats.safetensors_writer import SafetensorsWriter, WrittenFile
    from hubmerge.checkpoints.formats.shards import (
        Shard,
        ShardedWriter,
        plan_shards,
        uses_older_shards,
        write_index,
    )
    from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint, Alignment, Ignored
    from hubmerge.checkpoints.matching.copies import with_copies
    from hubmerge.checkpoints.matching.matcher import align, find_alignment, match
    from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
    from hubmerge.checkpoints.model_class.config_check import check_config
    from hubmerge.checkpoints.open import open_checkpoint, open_headers
    from hubmerge.checkpoints.origin import Origin
    from hubmerge.checkpoints.planning.load_check import check_loads
    from hubmerge.checkpoints.planning.matrices import MatrixRule, weight_matrices
    from hubmerge.checkpoints.planning.merge_plan import Action, MergePlan, PlannedTensor, make_plan
    from hubmerge.checkpoints.planning.published_config import PublishedConfig, published_config
    from hubmerge.checkpoints.planning.tied_values import check_ties
    from hubmerge.checkpoints.planning.tying import AlignedModels, align_models
    from hubmerge.checkpoints.planning.written_files import written_metadata, written_names
    from hubmerge.checkpoints.tensors import TensorInfo, TensorSpec

_NAMES = {
    "hubmerge.checkpoints.adapters.adapted": ("AdaptedCheckpoint",),
    "hubmerge.checkpoints.adapters.adapter": ("Adapter",),
    "hubmerge.checkpoints.adapters.open_adapter": (
        "base_model_of",
        "open_adapter",
        "read_adapter_config",
    ),
    "hubmerge.checkpoints.adapters.pipeline_adapter": ("PipelineAdapter",),
    "hubmerge.checkpoints.checkpoint": (
        "Checkpoint",
        "HeaderOnly",
        "TensorSource",
    ),
    "hubmerge.checkpoints.formats.header": (
        "Header",
        "parse_header",
    ),
    "hubmerge.checkpoints.formats.layout": (
        "WeightFiles",
        "choose_weights",
        "find_weights",
        "read_index",
    ),
    "hubmerge.checkpoints.formats.partial_file": (
        "FetchBytes",
        "create_partial_file",
        "is_partial_file",
    ),
    "hubmerge.checkpoints.formats.safetensors_reader": ("SafetensorsReader",),
    "hubmerge.checkpoints.formats.safetensors_writer": (
        "SafetensorsWriter",
        "WrittenFile",
    ),
    "hubmerge.checkpoints.formats.shards": (
        "Shard",
        "ShardedWriter",
        "plan_shards",
        "uses_older_shards",
        "write_index",
    ),
    "hubmerge.checkpoints.matching.alignment": (
        "AlignedCheckpoint",
        "Alignment",
        "Ignored",
    ),
    "hubmerge.checkpoints.matching.copies": ("with_copies",),
    "hubmerge.checkpoints.matching.matcher": (
        "align",
        "find_alignment",
        "match",
    ),
    "hubmerge.checkpoints.matching.selection": (
        "ALL_TENSORS",
        "Selection",
    ),
    "hubmerge.checkpoints.model_class.config_check": ("check_config",),
    "hubmerge.checkpoints.open": (
        "open_checkpoint",
        "open_headers",
    ),
    "hubmerge.checkpoints.origin": ("Origin",),
    "hubmerge.checkpoints.planning.load_check": ("check_loads",),
    "hubmerge.checkpoints.planning.matrices": (
        "MatrixRule",
        "weight_matrices",
    ),
    "hubmerge.checkpoints.planning.merge_plan": (
        "Action",
        "MergePlan",
        "PlannedTensor",
        "make_plan",
    ),
    "hubmerge.checkpoints.planning.published_config": (
        "PublishedConfig",
        "published_config",
    ),
    "hubmerge.checkpoints.planning.tied_values": ("check_ties",),
    "hubmerge.checkpoints.planning.tying": (
        "AlignedModels",
        "align_models",
    ),
    "hubmerge.checkpoints.planning.written_files": (
        "written_metadata",
        "written_names",
    ),
    "hubmerge.checkpoints.tensors": (
        "TensorInfo",
        "TensorSpec",
    ),
}

__all__ = [
    "ALL_TENSORS",
    "Action",
    "AdaptedCheckpoint",
    "Adapter",
    "AlignedCheckpoint",
    "AlignedModels",
    "Alignment",
    "Checkpoint",
    "FetchBytes",
    "Header",
    "HeaderOnly",
    "Ignored",
    "MatrixRule",
    "MergePlan",
    "Origin",
    "PipelineAdapter",
    "PlannedTensor",
    "PublishedConfig",
    "SafetensorsReader",
    "SafetensorsWriter",
    "Selection",
    "Shard",
    "ShardedWriter",
    "TensorInfo",
    "TensorSource",
    "TensorSpec",
    "WeightFiles",
    "WrittenFile",
    "align",
    "align_models",
    "base_model_of",
    "check_config",
    "check_loads",
    "check_ties",
    "choose_weights",
    "create_partial_file",
    "find_alignment",
    "find_weights",
    "is_partial_file",
    "make_plan",
    "match",
    "open_adapter",
    "open_checkpoint",
    "open_headers",
    "parse_header",
    "plan_shards",
    "published_config",
    "read_adapter_config",
    "read_index",
    "uses_older_shards",
    "weight_matrices",
    "with_copies",
    "write_index",
    "written_metadata",
    "written_names",
]

if not TYPE_CHECKING:
    __getattr__ = load_names(__name__, _NAMES)
