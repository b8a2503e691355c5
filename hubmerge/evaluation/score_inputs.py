"""Digests of what decides the scores of a model: weights, files of the base model, heads, rows, libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.checkpoint import byte_view
from hubmerge.evaluation.own_head import OwnHead
from hubmerge.support import interrupts
from hubmerge.support.hashing import file_digest
from hubmerge.support.version import VERSION
from merge_recipes.canonical import canonical_json

if TYPE_CHECKING:
    import datasets

LIBRARIES = (
    *("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "pillow"),
    *("evaluate", "datasets", "lm_eval", "sacrebleu", "sentence_transformers", "timm", "vllm"),
)
"""Libraries whose versions decide scores, as far as they are installed."""

ROWS = 1000
"""Number of rows that are read together."""


def digest_of(value: Any) -> str:
    """Return the digest of a value that can be written as JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def weights_digest(weights: Checkpoint) -> str:
    """Return the digest of the config of a model, and of the names, dtypes, shapes and values of its tensors.

    Files that have the tensors as they are stand for them: their digests are cached, and the report has them too.
    """
    files = weights.whole_files
    if files is not None:
        found = {name: file_digest(file) for name, file in files.items()}
        return digest_of(
            [weights.config, [[name, weights.tensors[name].file] for name in sorted(weights.tensors)], found]
        )
    values = ((name, weights.read(name)) for name in sorted(weights.tensors))
    return digest_of([weights.config, _tensors_digest(values)])


def files_digest(folder: Path) -> str:
    """Return the digest of the files of a base model with their names: weights, config, tokenizer, processor, modules.

    Hidden files and the folders of a training run (checkpoint-100) are left out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        interrupts.check()
        inside = path.relative_to(folder)
        if not any(part.startswith((".", "checkpoint-")) for part in inside.parts) and path.is_file():
            found[inside.as_posix()] = file_digest(path)
    return digest_of(found)


def head_digest(head: OwnHead | None) -> str | None:
    """Return the digest of the description and the values of a head, None for no head."""
    if head is None:
        return None
    facts = {key: value for key, value in asdict(head.facts).items() if key not in {"entry", "known"}}
    return digest_of([facts, _tensors_digest(sorted(head.read().items()))])


def rows_digest(rows: datasets.Dataset) -> str:
    """Return the digest of the columns and the rows of a data set."""
    found = hashlib.sha256(str(rows.features).encode())
    for table in rows.with_format("arrow").iter(batch_size=ROWS):
        interrupts.check()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table.combine_chunks())
        found.update(sink.getvalue())
    return found.hexdigest()


def environment(device: str) -> Mapping[str, str]:
    """Return what decides scores on this machine: device, dtype, versions of libraries, and the code of this package.

    Args:
        device: the torch device that runs the models.
    """
    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    return {"device": kind, "name": name, "dtype": "float32", **_versions()}


@cache
def _versions() -> Mapping[str, str]:
    found = {"hubmerge": VERSION}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    code = {path.name: file_digest(path) for path in Path(__file__).parent.glob("*.py")}
    return {**found, "code": digest_of(code)}


def _tensors_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    found = hashlib.sha256()
    for name, tensor in tensors:
        interrupts.check()
        found.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(byte_view(tensor))
    return found.hexdigest()
