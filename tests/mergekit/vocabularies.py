"""Tiny language models, each with a tokenizer of its own, in local folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SIZES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
}
TEXTS = {
    "base": "low lower lowest new newer newest",
    "a": "low lower lowest wide wider widest",
    "b": "old older oldest new newer newest",
}


def bytes_tokenizer(text: str, added: Sequence[str] = (), specials: Sequence[str] = ("<s>", "</s>")) -> Any:
    """Return a tokenizer of the kind BPE over bytes, trained on a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=list(specials), show_progress=False)
    made.train_from_iterator([text] * 3, trainer)
    return with_specials(made, added, specials)


def with_specials(made: Tokenizer, added: Sequence[str], specials: Sequence[str]) -> Any:
    """Return a tokenizer of transformers with special tokens, and with further tokens."""
    found = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=specials[0], eos_token=specials[1])
    found.add_tokens(list(added))
    return found


def unigram_tokenizer(text: str, added: Sequence[str] = ()) -> Any:
    """Return a Unigram tokenizer with blanks as part of the words."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=40, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([text] * 3, trainer)
    return with_specials(made, added, ("<s>", "</s>"))


def words_tokenizer(text: str, added: Sequence[str] = ()) -> Any:
    """Return a WordPiece tokenizer."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator([text] * 3, trainer)
    return with_specials(made, added, ("<s>", "</s>"))


def write_model(folder: Path, seed: int, tokenizer: Any, *, rows: int | None = None, **settings: Any) -> Path:
    """Write a tiny Llama with a tokenizer, with as many rows as tokens if no other number is given."""
    torch.manual_seed(seed)
    rows = len(tokenizer) if rows is None else rows
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=rows, **{**SIZES, **ids, **settings}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_models(home: Path, *, tie: bool = False) -> Path:
    """Write the models base, a and b with tokenizers over bytes, and return their folder."""
    added = {"base": [], "a": ["<a>", "<both>"], "b": ["<both>", "<b>"]}
    for seed, (name, text) in enumerate(TEXTS.items()):
        write_model(home / name, seed, bytes_tokenizer(text, added[name]), tie_word_embeddings=tie)
    return home
