"""Small files for the tests of checkpoints, some of them invalid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from hubmerge.checkpoints import Header, Origin, SafetensorsWriter, Selection, TensorSpec, parse_header
from hubmerge.errors import CheckpointError

ORIGIN = Origin("there", file="model.safetensors")


def header_bytes(entries: Any) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def parse(content: bytes) -> Header:
    return parse_header(lambda offset, length: content[offset : offset + length], len(content), ORIGIN)


def specs_of(tensors: Mapping[str, torch.Tensor]) -> list[TensorSpec]:
    return [TensorSpec(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]


def write_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    with SafetensorsWriter(path, specs_of(tensors)) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
        writer.commit()


def write_folder(folder: Path, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "model.safetensors", tensors)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def with_prefix(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def without(tensors: Mapping[str, torch.Tensor], names: Iterable[str]) -> dict[str, torch.Tensor]:
    left_out = set(names)
    assert left_out <= set(tensors)
    return {name: tensor for name, tensor in tensors.items() if name not in left_out}


def selection_in(error: CheckpointError) -> Selection:
    """Return the rule in the hint of an error."""
    found = re.search(r"tensors: \{.*?\}", error.hint or "")
    assert found is not None, error.hint
    rules = yaml.safe_load(found[0])["tensors"]
    return Selection(tuple(rules.get("include", ())), tuple(rules.get("exclude", ())))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sharded(folder: Path, weight_map: Any) -> Path:
    """Write two shards with three tensors, and an index with this map."""
    folder.mkdir(exist_ok=True)
    write_file(folder / "one.safetensors", random_tensors({"a": (2,), "b": (3,)}))
    write_file(folder / "two.safetensors", random_tensors({"c": (2,)}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


SHARDS = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
