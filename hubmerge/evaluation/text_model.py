"""Language model for scoring, with the tokenizer of the base model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.base_files import VOCABULARIES
from hubmerge.evaluation.model_scorer import ModelScorer

MOST_TOKENS = 1024
"""Length of a text in tokens if neither tokenizer nor model has a limit."""

_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length")
"""Keys of a config for the number of positions: models such as GPT-2 have one of the others."""

_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "xmod",
    }
)
"""Types of models that count positions from the padding token on, so that a text has fewer tokens than positions."""


class TextScorer(ModelScorer):
    """Scorer with a text model of transformers and the tokenizer of the base model."""

    def __init__(
        self,
        base_folder: Path,
        base: Checkpoint,
        auto_class: Any,
        task: str,
        *,
        identity: str,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(base_folder, base, auto_class, task, identity=identity, device=device)
        self.tokenizer: Any = load_tokenizer(base_folder, base.label)

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens of a text that the model accepts."""
        return most_tokens(self.model.config.to_dict(), self.tokenizer)

    def own_tokenizer(self) -> Any:
        """Return a copy of the tokenizer, for libraries that change it."""
        return copy.deepcopy(self.tokenizer)

    @property
    def token_count(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self.model.config.vocab_size)


class CausalKind:
    """Kind of task for base models that generate text."""

    name: str

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str | torch.device = "cpu"
    ) -> TextScorer:
        """Return a scorer with the base model and its head, in float32 on `device`."""
        return TextScorer(base_folder, base, AutoModelForCausalLM, self.name, identity=identity, device=device)


def most_tokens(config: Mapping[str, Any], tokenizer: Any) -> int:
    """Return the largest number of tokens of a text that model and tokenizer accept."""
    positions = next((config[key] for key in _POSITIONS if isinstance(config.get(key), int)), None)
    padding = config.get("pad_token_id")
    if isinstance(positions, int) and isinstance(padding, int) and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= padding + 1
    known = (positions, tokenizer.model_max_length)
    # A tokenizer without a limit has a huge number here.
    limits = [limit for limit in known if isinstance(limit, int) and 0 < limit < 1 << 31]
    return min(limits, default=MOST_TOKENS)


def load_tokenizer(folder: Path, label: str) -> Any:
    """Return the tokenizer of a base model.

    Raises:
        EvaluationError: there is none, or it cannot be read.
    """
    # Without any of these files, transformers returns a tokenizer with an empty vocabulary.
    if not any(path.is_file() for pattern in VOCABULARIES for path in folder.glob(pattern)):
        raise EvaluationError(
            f"{label}: the base model's repo has no tokenizer",
            hint=f"choose a base model with one of the files {', '.join(VOCABULARIES)}",
            file=str(folder),
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{label}: the base model's tokenizer cannot be read: {str(error).splitlines()[0]}",
            hint="choose a base model with tokenizer files",
            file=str(folder),
        ) from error
