"""Tiny classifiers with heads of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Command = Callable[..., tuple[int, str, str]]
ONE, TWO = ["cat", "dog", "owl"], ["bad", "good"]
BERT = "BertForSequenceClassification"


def make_model(model_class: str, settings: dict[str, Any], seed: int, labels: list[str] | None = None) -> Any:
    import transformers

    found = getattr(transformers, model_class)
    names = (
        {}
        if labels is None
        else {"id2label": dict(enumerate(labels)), "label2id": {b: a for a, b in enumerate(labels)}}
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return found(found.config_class(**{**settings, **names})).eval()
