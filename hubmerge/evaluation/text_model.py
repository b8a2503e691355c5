"""Language model for scoring, with the tokenizer of the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.base_files import VOCABULARIES
from hubmerge.evaluation.model_scorer import ModelScorer

MOST_TOKENS = 1024
"""Length of a text in tokens if neither tokenizer nor model has a limit."""


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
        self.tokenizer: Any = _load_tokenizer(base_folder, base.label)

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens of a text that the model accepts."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        known = (positions, self.tokenizer.model_max_length)
        # A tokenizer without a limit has a huge number here.
        limits = [limit for limit in known if isinstance(limit, int) and 0 < limit < 1 << 31]
        return min(limits, default=MOST_TOKENS)

    @property
    def token_count(self) -> int:
        """Number of tokens in the vocabulary."""
        return int(self.model.config.vocab_size)


def _load_tokenizer(folder: Path, label: str) -> Any:
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
