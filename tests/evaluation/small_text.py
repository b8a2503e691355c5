"""Tiny language models with a tokenizer of words, saved as their users would save them, and datasets of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from hubmerge.checkpoints import Checkpoint, open_checkpoint

TEXT = "the a cat dog bird sits runs sings on under in mat tree sun good bad very not happy sad today now"
WORDS = TEXT.split()
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
LABELS = ("good", "bad", "dog", "cat")
LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": len(SPECIAL + WORDS),
    "max_position_embeddings": 12,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 12, "vocab_size": len(SPECIAL + WORDS)}
GPT2 |= {"bos_token_id": 2, "eos_token_id": 3}
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {name: row for row, name in enumerate(LABELS)}}


def save_tokenizer(folder: Path, *, pads: bool = True, around: bool = True) -> Any:
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if around:
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    padding = {"pad_token": "[PAD]"} if pads else {}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]", **padding
    )
    fast.save_pretrained(folder)
    return fast


def save_model(folder: Path, kind: str, seed: int = 0, **config: Any) -> Any:
    """Return a model of that class with random weights, wide enough for scores to differ."""
    model_class = getattr(transformers, kind)
    settings = GPT2 if kind.startswith("GPT2") else LAYERS
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(model_class.config_class(**{**settings, **config})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(folder, folder.name)


def sentences(count: int, seed: int = 0) -> list[str]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [
        " ".join(WORDS[number] for number in torch.randint(len(WORDS), (length,), generator=generator).tolist())
        for length in lengths
    ]


def rows_of(names: tuple[str, ...] = LABELS, count: int = 40, column: str = "text") -> datasets.Dataset:
    features = datasets.Features({column: datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})
    labels = [number % len(names) for number in range(count)]
    return datasets.Dataset.from_dict({column: sentences(count), "label": labels}, features=features)
