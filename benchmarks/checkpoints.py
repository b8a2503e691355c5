"""Synthetic CLIP vision towers to measure with: a base model and any number of fine-tuned ones, all from one seed.

    python benchmarks/checkpoints.py --folder ~/.cache/hubmerge/benchmarks --size b32 --models 8

Every folder is a model that `CLIPVisionModel.from_pretrained` loads. Task vectors are made so that the linear algebra
of a merge meets what it meets with real ones: singular values that fall smoothly over some two decades, a length of a
hundredth of the base model's tensor by tensor, and a tenth of the energy shared by all of the stream.
Folders that are there already are left as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

RELATIVE_LENGTH = 1e-2
SHARED_ENERGY = 0.1
DECAY = 4.0
"""The largest singular value over the smallest is about e to this, before the random factors spread them further."""


@dataclass(frozen=True)
class Size:
    """Sizes of a tower; names are those of the CLIP family."""

    width: int
    layers: int
    heads: int
    patch: int
    projection: int
    activation: str = "quick_gelu"

    def config(self) -> dict[str, object]:
        """Its config.json."""
        return {
            "architectures": ["CLIPVisionModel"],
            "model_type": "clip_vision_model",
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "patch_size": self.patch,
            "image_size": 224,
            "projection_dim": self.projection,
            "hidden_act": self.activation,
        }

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of its tensors."""
        width = self.width
        yield "vision_model.embeddings.class_embedding", (width,)
        yield "vision_model.embeddings.patch_embedding.weight", (width, 3, self.patch, self.patch)
        yield "vision_model.embeddings.position_embedding.weight", ((224 // self.patch) ** 2 + 1, width)
        for norm in ("pre_layrnorm", "post_layernorm"):
            yield from _pair(f"vision_model.{norm}", (width,))
        for layer in range(self.layers):
            prefix = f"vision_model.encoder.layers.{layer}"
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield from _pair(f"{prefix}.self_attn.{part}", (width, width))
            for norm in ("layer_norm1", "layer_norm2"):
                yield from _pair(f"{prefix}.{norm}", (width,))
            yield from _pair(f"{prefix}.mlp.fc1", (4 * width, width))
            yield from _pair(f"{prefix}.mlp.fc2", (width, 4 * width))


SIZES: Mapping[str, Size] = {
    "tiny": Size(64, 2, 4, 32, 32),
    "b32": Size(768, 12, 12, 32, 512),
    "b16": Size(768, 12, 12, 16, 512),
    "l14": Size(1024, 24, 16, 14, 768),
    "h14": Size(1280, 32, 16, 14, 1024, "gelu"),
}


@dataclass(frozen=True)
class Stream:
    """Folders of a base model and of the models fine-tuned from it."""

    base: Path
    models: tuple[Path, ...]


def make_stream(folder: Path, size: str, models: int) -> Stream:
    """Make what is missing of a stream below `folder`; the same folders hold the same bytes on any run."""
    root = folder / "checkpoints" / size
    stream = Stream(root / "base", tuple(root / f"model-{number:02}" for number in range(1, models + 1)))
    for number, target in enumerate((stream.base, *stream.models)):
        if not target.is_dir():
            _write(target, SIZES[size], number)
    return stream


def task_vector(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return a random float32 task vector of norm 1; matrices have a decaying spectrum, other tensors no structure."""
    if len(shape) != 2 or min(shape) < 2:
        vector = torch.randn(shape, generator=generator)
    else:
        small, large = sorted(shape)
        values = torch.exp(-DECAY * torch.arange(small) / small)
        left, right = torch.randn(small, small, generator=generator), torch.randn(small, large, generator=generator)
        vector = (left * values) @ right
        vector = vector if shape == tuple(vector.shape) else vector.T.contiguous()
    return vector / torch.linalg.vector_norm(vector)


def _pair(prefix: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.weight", shape
    yield f"{prefix}.bias", shape[:1]


def _write(target: Path, size: Size, number: int) -> None:
    """Model `number` of a stream, 0 for the base model."""
    tensors = {}
    for place, (name, shape) in enumerate(size.shapes()):
        start = _base_tensor(name, shape, place)
        if number > 0:
            shared, own = (task_vector(shape, _generator(place, which)) for which in (1, 1 + number))
            change = math.sqrt(SHARED_ENERGY) * shared + math.sqrt(1.0 - SHARED_ENERGY) * own
            start += RELATIVE_LENGTH * torch.linalg.vector_norm(start) * change
        tensors[name] = start
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    (partial / "config.json").write_text(json.dumps(size.config(), indent=2) + "\n", encoding="utf-8")
    partial.rename(target)


def _base_tensor(name: str, shape: tuple[int, ...], place: int) -> torch.Tensor:
    values = 0.02 * torch.randn(shape, generator=_generator(place, 0))
    return values + 1.0 if "norm" in name and name.endswith(".weight") else values


def _generator(place: int, which: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * which + place)


def main(argv: Sequence[str] | None = None) -> None:
    """Make a stream and print where it lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where they go; some gigabytes")
    parser.add_argument("--size", choices=SIZES, default="b32")
    parser.add_argument("--models", type=int, default=8)
    options = parser.parse_args(argv)
    stream = make_stream(options.folder.expanduser(), options.size, options.models)
    print(stream.base, *stream.models, sep="\n")


if __name__ == "__main__":
    main()
