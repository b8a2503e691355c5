"""Stand-ins for CLIP repos, with random weights, in the real size or tiny."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from hubmerge.demo.folders import quiet, write_card
from hubmerge.demo.model import (
    END_TOKEN,
    START_TOKEN,
    make_tokenizer,
    perturbed_tower,
    save_image_processor,
)
from hubmerge.errors import HubmergeError

TEXT_POSITIONS = 77
NOISE = 0.002  # typical change of a weight by fine-tuning


@dataclass(frozen=True)
class Tower:
    """Sizes of a transformer: width, inner width of a layer, number of layers, number of heads."""

    width: int
    inner: int
    layers: int
    heads: int


@dataclass(frozen=True)
class ClipSize:
    """Sizes of a CLIP model; image and patch in pixels per side."""

    vision: Tower
    text: Tower
    projection: int
    image: int
    patch: int


_BASE, _LARGE = Tower(768, 3072, 12, 12), Tower(1024, 4096, 24, 16)
FULL = {
    "clip-vit-base-patch32": ClipSize(_BASE, Tower(512, 2048, 12, 8), 512, 224, 32),
    "clip-vit-base-patch16": ClipSize(_BASE, Tower(512, 2048, 12, 8), 512, 224, 16),
    "clip-vit-large-patch14": ClipSize(_LARGE, Tower(768, 3072, 12, 12), 768, 224, 14),
}
TINY = ClipSize(Tower(32, 64, 2, 2), Tower(32, 64, 1, 2), 16, 24, 8)


def size_of(name: str, *, full: bool) -> ClipSize:
    """Return the size of a model by name, or the tiny size with `full=False`.

    Raises:
        HubmergeError: the size of the model is not known.
    """
    if not full:
        return TINY
    if name not in FULL:
        raise HubmergeError(
            f"the size of the base model {name!r} is not known: expected one of {', '.join(FULL)}",
            hint="leave out --full to make tiny models",
        )
    return FULL[name]


def make_base(size: ClipSize, sentences: Iterable[str], seed: int) -> tuple[CLIPModel, CLIPTokenizer]:
    """Return a CLIP model with random weights, and a tokenizer with one token for every word of the sentences."""
    tokenizer = make_tokenizer(sentences)
    special = {
        "bos_token_id": tokenizer.convert_tokens_to_ids(START_TOKEN),
        "eos_token_id": tokenizer.convert_tokens_to_ids(END_TOKEN),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END_TOKEN),
    }
    shared = {"projection_dim": size.projection}
    text = {**_tower(size.text), **shared, **special}
    text |= {"vocab_size": len(tokenizer), "max_position_embeddings": TEXT_POSITIONS}
    vision = {**_tower(size.vision), **shared, "image_size": size.image, "patch_size": size.patch}
    config = CLIPConfig(text_config=text, vision_config=vision, **shared, **special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config).eval(), tokenizer


def write_base(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer, repo: str) -> None:
    """Write the base model's repo: weights, tokenizer, image processor."""
    folder.mkdir(parents=True)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_image_processor(folder, model.config.vision_config.image_size)
    _write_card(folder, repo, {"pipeline_tag": "zero-shot-image-classification"})


def write_tower(folder: Path, model: CLIPModel, repo: str, seed: int, base_repo: str) -> None:
    """Write the repo of a vision tower: that of the base model with noise on every weight."""
    folder.mkdir(parents=True)
    with quiet():
        perturbed_tower(model, seed, NOISE).save_pretrained(folder)
    _write_card(folder, repo, {"base_model": base_repo})


def _tower(tower: Tower) -> dict[str, int]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.inner,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
    }


def _write_card(folder: Path, repo: str, metadata: dict[str, str]) -> None:
    text = f"# Stand-in for {repo}\n\nIts weights were drawn at random. It serves to try a run out, and nothing else.\n"
    write_card(folder, {"library_name": "transformers", "tags": ["hubmerge-stand-in"], **metadata}, text)
