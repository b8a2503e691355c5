"""CLIP model for scoring: the base model, whose vision tower is replaced after every step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPModel

from hubmerge.checkpoints import AdaptedCheckpoint
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.classes import check_finite
from hubmerge.evaluation.kinds import Weights
from hubmerge.evaluation.stoppable import stoppable

TOWER = "vision_model."
BUFFERS = "position_ids"  # written by older versions of transformers, not part of the model any more
PROMPTS_PER_BATCH = 256


class ClipScorer:
    """Scorer with text embeddings of the base model and image embeddings of the loaded vision tower.

    All arithmetic is float32, with any dtype of the files. `identity` is the commit of the base model, a key of the
    cache. A new scorer has the vision tower of the base model.
    """

    def __init__(self, base_folder: Path, base: Weights, *, identity: str, device: str | torch.device = "cpu") -> None:
        self.base_folder, self.identity = base_folder, identity
        self.device = torch.device(device)
        self._base = base
        self._model = _load_base(base_folder).to(self.device)
        if isinstance(base, AdaptedCheckpoint):
            state = self._model.state_dict()
            for name in base.changed:
                state[name].copy_(base.read(name))
        self._tokenizer: Any = None
        self.label = base.label

    @property
    def logit_scale(self) -> float:
        """Factor of the cosines: exp of the scale that the base model learned."""
        return float(self._model.logit_scale.exp())

    def load(self, weights: Weights, *, check_frozen: bool = True) -> None:
        """Load the vision tower of a full CLIP model or of a vision tower alone.

        With `check_frozen`, a full model must be equal to the base model outside of the vision tower, because the
        scores use the base model's text tower. Without, only the tower of a fine-tuned checkpoint counts.

        Raises:
            EvaluationError: a tensor is missing, unknown or has another shape, or a frozen one differs.
        """
        prefix = TOWER if any(name.startswith(TOWER) for name in weights.tensors) else ""
        tower = self._model.vision_model.state_dict()
        self._check_tower(tower, weights, prefix)
        if check_frozen and prefix:
            self._check_frozen(weights)
        self.label = f"{weights.label} (not loaded completely)"
        with torch.no_grad():
            for name, parameter in tower.items():
                parameter.copy_(weights.read(prefix + name))
        self.label = weights.label

    def load_base(self) -> None:
        """Load the vision tower of the base model."""
        self.load(self._base)

    @torch.no_grad()
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image embeddings, (B, D) with rows of length 1, of float32 (B, 3, H, W) on the device.

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        with torch.backends.cudnn.flags(allow_tf32=False):
            pooled = self._model.vision_model(pixel_values=pixel_values).pooler_output
            features: torch.Tensor = _normalized(self._model.visual_projection(pooled))
        check_finite(features, self.label)
        return features

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the text embeddings of the base model, float32 (N, D) with rows of length 1."""
        parts = []
        limit = self._model.config.text_config.max_position_embeddings
        for batch in _batches(texts, PROMPTS_PER_BATCH):
            tokens = self._tokens(batch, limit).to(self.device)
            pooled = self._model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            parts.append(_normalized(self._model.text_projection(pooled)))
        return torch.cat(parts)

    def class_embeddings(self, prompts: Sequence[str], class_names: Sequence[str]) -> torch.Tensor:
        """Return the zero-shot head, float32 (C, D).

        A row is the mean over prompts of the unit text embeddings, scaled to unit length. The text tower runs once over
        all prompts of all classes.
        """
        texts = [prompt.replace("{}", name) for name in class_names for prompt in prompts]
        embeddings = self.text_features(texts).reshape(len(class_names), len(prompts), -1)
        return _normalized(embeddings.mean(dim=1))

    def head_digest(self, prompts: Sequence[str], class_names: Sequence[str]) -> str:
        """Return the name of a head in the cache, from base model, prompts and class names."""
        return sha256(json.dumps([self.identity, list(prompts), list(class_names)]).encode()).hexdigest()[:32]

    def logits(self, features: torch.Tensor, head: torch.Tensor) -> np.ndarray:
        """Return scaled cosines, float32 (B, C), of unit image features (B, D) and a head (C, D)."""
        values: np.ndarray = (self.logit_scale * features @ head.T).cpu().numpy()
        return values

    def _tokens(self, texts: Sequence[str], limit: int) -> Any:
        if self._tokenizer is None:
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(
                    self.base_folder, local_files_only=True, trust_remote_code=False
                )
            except (OSError, ValueError, KeyError) as error:
                raise EvaluationError(
                    f"{self._base.label}: the base model's tokenizer cannot be read: {error}",
                    hint="choose a base model with tokenizer files",
                    file=str(self.base_folder),
                ) from error
        tokens = self._tokenizer(list(texts), return_tensors="pt", padding=True)
        if tokens["input_ids"].shape[1] > limit:
            longest = max(texts, key=len)
            raise EvaluationError(
                f"a prompt is longer than the {limit} tokens of the text tower: {longest!r}",
                hint="shorten the prompts or the class names",
            )
        return tokens

    def _check_tower(self, tower: Mapping[str, torch.Tensor], weights: Weights, prefix: str) -> None:
        for name, parameter in tower.items():
            info = weights.tensors.get(prefix + name)
            if info is None:
                raise EvaluationError(
                    f"{weights.label}: tensor {prefix + name!r} of the base model's vision tower is missing",
                    tensor=prefix + name,
                )
            if tuple(info.shape) != tuple(parameter.shape):
                raise EvaluationError(
                    f"{weights.label}: tensor {prefix + name!r} has the shape {tuple(info.shape)}, "
                    f"expected {tuple(parameter.shape)} as in the base model",
                    tensor=prefix + name,
                )
        for name in weights.tensors:
            short = name.removeprefix(prefix)
            if name.startswith(prefix) and short not in tower and not name.endswith(BUFFERS):
                raise EvaluationError(
                    f"{weights.label}: tensor {name!r} is not in the base model's vision tower", tensor=name
                )

    def _check_frozen(self, weights: Weights) -> None:
        for name in weights.tensors:
            if name.startswith(TOWER) or name not in self._base.tensors or name.endswith(BUFFERS):
                continue
            found = weights.read(name)
            expected = self._base.read(name)
            if found.shape != expected.shape or not torch.equal(found, expected.to(found.dtype)):
                raise EvaluationError(
                    f"{weights.label}: tensor {name!r} differs from the base model's, "
                    "and zero-shot scores use the base model's text tower and projections",
                    hint="merge the vision tower alone: `tensors: {include: ['vision_model.*']}`",
                    tensor=name,
                )


def _load_base(folder: Path) -> Any:
    """Return the base CLIPModel in float32 and eval mode, with every weight from the files."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{folder}: the base model's config.json cannot be read: {error}", file=str(folder / "config.json")
        ) from error
    if kind != "clip":
        raise EvaluationError(
            f"{folder}: the base model is of type {kind!r}, zero-shot image classification needs a full 'clip' model",
            hint="choose a base model with both towers, such as openai/clip-vit-base-patch32",
            file=str(folder / "config.json"),
        )
    model, info = CLIPModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if info["missing_keys"]:
        missing = min(info["missing_keys"])
        raise EvaluationError(f"{folder}: the base model lacks the tensor {missing!r}", tensor=missing)
    model.requires_grad_(requires_grad=False)
    return stoppable(model.eval())


def _normalized(values: torch.Tensor) -> torch.Tensor:
    return values / values.norm(dim=-1, keepdim=True)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
