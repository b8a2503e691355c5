"""Checkpoints: reading, naming, planning and writing, one tensor at a time."""

from __future__ import annotations

from hubmerge.checkpoints.checkpoint import Checkpoint, HeaderOnly, TensorSource
from hubmerge.checkpoints.folder import open_checkpoint, open_headers
from hubmerge.checkpoints.header import Header, parse_header
from hubmerge.checkpoints.layout import WeightFiles, find_weights, read_index
from hubmerge.checkpoints.safetensors_file import SafetensorsFile
from hubmerge.checkpoints.shards import Shard, ShardedWriter, plan_shards, write_index
from hubmerge.checkpoints.tensors import TensorInfo, TensorSpec
from hubmerge.checkpoints.writing import SafetensorsWriter, WrittenFile

__all__ = [
    "Checkpoint",
    "Header",
    "HeaderOnly",
    "SafetensorsFile",
    "SafetensorsWriter",
    "Shard",
    "ShardedWriter",
    "TensorInfo",
    "TensorSource",
    "TensorSpec",
    "WeightFiles",
    "WrittenFile",
    "find_weights",
    "open_checkpoint",
    "open_headers",
    "parse_header",
    "plan_shards",
    "read_index",
    "write_index",
]
