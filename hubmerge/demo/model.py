"""Tiny CLIP model with the regular architecture, tokenizer and image processor.

The saved repo has a `CLIPModel` with 0.6 million parameters, a `CLIPTokenizer` and a `CLIPImageProcessor`, and loads
without hubmerge.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

IMAGE_SIZE = 24
PATCH_SIZE = 8
TEXT_POSITIONS = 32
START_TOKEN = "<|startoftext|>"  # noqa: S105
END_TOKEN = "<|endoftext|>"  # noqa: S105
END_OF_WORD = "</w>"


def make_tokenizer(sentences: Iterable[str]) -> CLIPTokenizer:
    """Return a CLIP tokenizer with one token for every word of the sentences; other text is split into bytes."""
    regular = CLIPTokenizer().backend_tokenizer
    split: set[tuple[str, ...]] = set()
    for sentence in sentences:
        for word, _ in regular.pre_tokenizer.pre_tokenize_str(regular.normalizer.normalize_str(sentence)):
            split.add((*word[:-1], word[-1] + END_OF_WORD))
    merges = _merges(split)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [letter + END_OF_WORD for letter in alphabet] + [left + right for left, right in merges]
    vocabulary = {token: number for number, token in enumerate([*tokens, START_TOKEN, END_TOKEN])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_POSITIONS)


def _merges(words: set[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Return the pairs of a byte pair encoding, in order, until every word is one token.

    Of equally frequent pairs, the alphabetically first is taken. The trainer of `tokenizers` takes a random one, so its
    result would differ between processes.
    """
    merges: list[tuple[str, str]] = []
    while True:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        words = {_merged(word, best) for word in words}


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    parts: list[str] = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def make_image_processor(side: int = IMAGE_SIZE) -> CLIPImageProcessorPil:
    """Return CLIP's image processor for square images of `side` pixels, with CLIP's normalization."""
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def make_model(tokenizer: CLIPTokenizer, seed: int) -> CLIPModel:
    """Return a CLIP model with random weights of a seed, and leave torch's global generator unchanged."""
    special = {
        "bos_token_id": tokenizer.convert_tokens_to_ids(START_TOKEN),
        "eos_token_id": tokenizer.convert_tokens_to_ids(END_TOKEN),
        "pad_token_id": tokenizer.convert_tokens_to_ids(END_TOKEN),
    }
    config = CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": TEXT_POSITIONS,
            "projection_dim": 64,
            "hidden_act": "relu",
            **special,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "projection_dim": 64,
            "hidden_act": "relu",
        },
        projection_dim=64,
        **special,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)


def perturbed_tower(model: CLIPModel, seed: int, size: float = 0.02) -> CLIPVisionModel:
    """Return the vision tower with seeded noise on every weight, as a quick substitute for fine-tuning."""
    tower = vision_tower(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return tower


def vision_tower(model: CLIPModel) -> CLIPVisionModel:
    """Return a copy of the vision tower as a separate model, which `CLIPVisionModel.from_pretrained` reads."""
    tower = CLIPVisionModel(model.config.vision_config)
    own = tower.state_dict()
    # Releases of transformers differ in whether the tower's names start with "vision_model.".
    theirs = {name.removeprefix("vision_model."): value for name, value in model.vision_model.state_dict().items()}
    tower.load_state_dict({name: theirs[name.removeprefix("vision_model.")] for name in own})
    return tower.eval()


def save_base(model: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write model, tokenizer and image processor as one CLIP repo."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_image_processor(folder)


def save_tower(tower: CLIPVisionModel, folder: Path) -> None:
    """Write a fine-tuned vision tower with its image processor."""
    tower.save_pretrained(folder)
    save_image_processor(folder)


def save_image_processor(folder: Path, side: int = IMAGE_SIZE) -> None:
    """Write `preprocessor_config.json` under the class name that every transformers release knows."""
    processor = make_image_processor(side)
    processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["image_processor_type"] = "CLIPImageProcessor"
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
