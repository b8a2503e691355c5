"""The CLIP model that is scored: the base model with its vision tower's weights swapped, step after step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, CLIPModel

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.kinds import Weights

TOWER = "vision_model."
BUFFERS = "position_ids"  # kept in files by older versions of transformers, no longer part of the model
PROMPTS_PER_BATCH = 256


class ClipScorer:
    """Text embeddings from the frozen base model, image embeddings from whichever vision tower is loaded.

    All arithmetic is float32, whatever dtype the files hold. `identity` is the base model's commit: it keys what is
    cached. A new scorer holds the base model's own vision tower.
    """

    def __init__(self, base_folder: Path, base: Weights, *, identity: str, device: str | torch.device = "cpu") -> None:
        self.base_folder, self.identity = base_folder, identity
        self.device = torch.device(device)
        self._base = base
        self._model = _load_base(base_folder).to(self.device)
        self._tokenizer: Any = None
        self.label = base.label

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied by: exp of the base model's learnt scale."""
        return float(self._model.logit_scale.exp())

    def load(self, weights: Weights, *, check_frozen: bool = True) -> None:
        """Swap in the vision tower of `weights`: a full CLIP model, or a vision tower alone.

        With `check_frozen`, a full model must agree with the base model outside the vision tower: its scores would not
        be its own otherwise. Switch it off to look at a fine-tuned checkpoint's tower through the base's text tower.

        Raises:
            EvaluationError: a tensor is missing, unknown or shaped differently, or a frozen one differs.
        """
        prefix = TOWER if any(name.startswith(TOWER) for name in weights.tensors) else ""
        tower = self._model.vision_model.state_dict()
        self._check_tower(tower, weights, prefix)
        if check_frozen and prefix:
            self._check_frozen(weights)
        self.label = f"{weights.label} (not completely loaded)"
        with torch.no_grad():
            for name, parameter in tower.items():
                parameter.copy_(weights.read(prefix + name))
        self.label = weights.label

    def load_base(self) -> None:
        """Swap the base model's own vision tower back in."""
        self.load(self._base)

    @torch.no_grad()
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """float32 (B, 3, H, W) on the device -> (B, D) of length 1.

        Raises:
            EvaluationError: the model gives values that are not finite.
        """
        with torch.backends.cudnn.flags(allow_tf32=False):
            pooled = self._model.vision_model(pixel_values=pixel_values).pooler_output
            features: torch.Tensor = _normalised(self._model.visual_projection(pooled))
        if not bool(torch.isfinite(features).all()):
            raise EvaluationError(
                f"{self.label}: the vision tower gives values that are not finite",
                hint="its weights have grown too large or hold NaN; look at the scale and norms of its step",
            )
        return features

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """One row of length 1 per text, float32 (N, D), from the base model's text tower."""
        parts = []
        limit = self._model.config.text_config.max_position_embeddings
        for batch in _batches(texts, PROMPTS_PER_BATCH):
            tokens = self._tokens(batch, limit).to(self.device)
            pooled = self._model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            parts.append(_normalised(self._model.text_projection(pooled)))
        return torch.cat(parts)

    def class_embeddings(self, prompts: Sequence[str], class_names: Sequence[str]) -> torch.Tensor:
        """The zero-shot head, float32 (C, D): per class the mean over prompts of unit text embeddings, made unit again.

        The text tower runs once over all prompts of all classes.
        """
        texts = [prompt.replace("{}", name) for name in class_names for prompt in prompts]
        embeddings = self.text_features(texts).reshape(len(class_names), len(prompts), -1)
        return _normalised(embeddings.mean(dim=1))

    def head_digest(self, prompts: Sequence[str], class_names: Sequence[str]) -> str:
        """Names a head in a cache: base model, prompts and class names."""
        return sha256(json.dumps([self.identity, list(prompts), list(class_names)]).encode()).hexdigest()[:32]

    def logits(self, features: torch.Tensor, head: torch.Tensor) -> np.ndarray:
        """Scaled cosines, float32 (B, C), of unit image features (B, D) and a head (C, D)."""
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
                    hint="the base model's repo must hold its tokenizer files",
                ) from error
        tokens = self._tokenizer(list(texts), return_tensors="pt", padding=True)
        if tokens["input_ids"].shape[1] > limit:
            longest = max(texts, key=len)
            raise EvaluationError(
                f"a prompt is longer than the {limit} tokens the text tower takes: {longest!r}",
                hint="shorten the prompts or the class names",
            )
        return tokens

    def _check_tower(self, tower: Mapping[str, torch.Tensor], weights: Weights, prefix: str) -> None:
        for name, parameter in tower.items():
            info = weights.tensors.get(prefix + name)
            if info is None:
                raise EvaluationError(f"{weights.label}: no tensor {prefix + name!r} of the base model's vision tower")
            if tuple(info.shape) != tuple(parameter.shape):
                raise EvaluationError(
                    f"{weights.label}: tensor {prefix + name!r} is {tuple(info.shape)}, "
                    f"the base model's is {tuple(parameter.shape)}"
                )
        for name in weights.tensors:
            short = name.removeprefix(prefix)
            if name.startswith(prefix) and short not in tower and not name.endswith(BUFFERS):
                raise EvaluationError(f"{weights.label}: tensor {name!r} is not in the base model's vision tower")

    def _check_frozen(self, weights: Weights) -> None:
        for name in weights.tensors:
            if name.startswith(TOWER) or name not in self._base.tensors or name.endswith(BUFFERS):
                continue
            found = weights.read(name)
            expected = self._base.read(name)
            if found.shape != expected.shape or not torch.equal(found, expected.to(found.dtype)):
                raise EvaluationError(
                    f"{weights.label}: tensor {name!r} differs from the base model's, "
                    "but zero-shot scores use the base model's text tower and projections",
                    hint="merge the vision tower alone: `tensors: {include: ['vision_model.*']}`",
                )


def _load_base(folder: Path) -> Any:
    """The base CLIPModel in float32, in eval mode, every weight of it from the files."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{folder}: the base model's config.json cannot be read: {error}") from error
    if kind != "clip":
        raise EvaluationError(
            f"{folder}: the base model is of type {kind!r}, zero-shot image classification needs a full 'clip' model",
            hint="name a base model that holds both towers, like openai/clip-vit-base-patch32",
        )
    model, info = CLIPModel.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if info["missing_keys"]:
        raise EvaluationError(f"{folder}: the base model lacks the tensor {min(info['missing_keys'])!r}")
    model.requires_grad_(False)
    return model.eval()


def _normalised(values: torch.Tensor) -> torch.Tensor:
    return values / values.norm(dim=-1, keepdim=True)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
