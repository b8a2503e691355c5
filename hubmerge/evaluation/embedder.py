"""Sentence embedder for scoring: a model of sentence-transformers with modules and prompts of the base model's repo."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.base_files import BaseFiles, check_embedder
from hubmerge.evaluation.model_scorer import ModelScorer
from hubmerge.evaluation.stoppable import stoppable
from hubmerge.support.versions import INSTALL_EVAL

PACKAGE = "sentence_transformers"


def sentence_transformers() -> Any:
    """Import and return sentence-transformers."""
    return importlib.import_module(PACKAGE)


def evaluators() -> Any:
    """Import and return the evaluators of sentence-transformers."""
    for name in ("sentence_transformers.sentence_transformer.evaluation", "sentence_transformers.evaluation"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise EvaluationError("sentence-transformers has no evaluators", hint=INSTALL_EVAL)


class EmbeddingScorer(ModelScorer):
    """Scorer with an embedder in float32: the transformer is replaced after every step, pooling and prompts are kept.

    The modules are those of the base model's modules.json. Without this file, tokens are averaged.

    Attributes:
        sentences: the SentenceTransformer.
    """

    sentences: Any

    def __init__(
        self,
        base_folder: Path,
        base: Checkpoint,
        kind: str,
        *,
        identity: str,
        device: str | torch.device = "cpu",
    ) -> None:
        check_embedder(BaseFiles(base.label, base.config, frozenset()))
        super().__init__(base_folder, base, None, kind, identity=identity, device=device)

    def load(self, weights: Checkpoint, *, check_frozen: bool = True) -> None:
        """Load the transformer of a merged model, or with `check_frozen=False` of a fine-tuned checkpoint."""
        super().load(weights, check_frozen=check_frozen)
        self.sentences[0].auto_model = self.model

    def _open(self, folder: Path, auto_class: Any, label: str, task: str) -> Any:  # noqa: ARG002 - no class to choose
        try:
            found = sentence_transformers().SentenceTransformer(
                str(folder), device=str(self.device), local_files_only=True, trust_remote_code=False,
                model_kwargs={"dtype": torch.float32},
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise EvaluationError(
                f"{label}: the base model cannot be loaded for a task of the kind {task}: {str(error).splitlines()[0]}",
                hint="choose a base model that sentence-transformers can load",
                file=str(folder),
            ) from error
        model = getattr(found[0], "auto_model", None)
        if model is None:
            raise EvaluationError(
                f"{label}: the first module of the base model is a {type(found[0]).__name__}, expected a Transformer",
                hint="choose a base model of sentence-transformers that begins with a model of transformers",
                file=str(folder),
            )
        found.requires_grad_(requires_grad=False)
        self.sentences = stoppable(found.eval())
        return model

    @torch.no_grad()
    def embed(self, texts: list[str], batch_size: int) -> torch.Tensor:
        """Return the embeddings of texts with the repo's default prompt, float32 (N, D) with rows of length 1."""
        found = self.sentences.encode(
            texts, batch_size=batch_size, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        values: torch.Tensor = found.float().cpu()
        return values


class EmbedderKind:
    """Kind of task for base models that sentence-transformers loads."""

    name: str

    def open_scorer(
        self, base_folder: Path, base: Checkpoint, *, identity: str, device: str = "cpu"
    ) -> EmbeddingScorer:
        """Return a scorer with the base model, in float32 on `device`."""
        return EmbeddingScorer(base_folder, base, self.name, identity=identity, device=device)
