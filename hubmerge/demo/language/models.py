"""Two tiny models of transformers' regular classes, and their tokenizer of words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

POSITIONS = 32
UNKNOWN, PADDING, BEGIN, END = "[UNK]", "[PAD]", "[CLS]", "[SEP]"
SPECIAL = (UNKNOWN, PADDING, BEGIN, END)


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for every word of the texts, and a mark before and after each text."""
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, SPECIAL.index(BEGIN)), (END, SPECIAL.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PADDING,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=POSITIONS,
    )


def make_classifier(tokenizer: PreTrainedTokenizerFast, classes: Sequence[str], seed: int) -> Any:
    """Return a BERT with a head for all classes, with random weights of the seed."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    return _drawn(BertForSequenceClassification, config, seed)


def make_writer(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    """Return a GPT-2, with random weights of the seed."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=64,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _drawn(GPT2LMHeadModel, config, seed)


def save(model: Any, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write model and tokenizer as one repo."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _drawn(kind: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config)
