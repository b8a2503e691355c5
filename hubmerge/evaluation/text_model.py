"""The language model that is scored: built once a run from the base model, its weights swapped step after step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from hubmerge.checkpoints import Checkpoint, Selection, align, weight_matrices
from hubmerge.checkpoints.matching.names import parameter_shapes
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.planning.heads import HEADS
from hubmerge.errors import CheckpointError, EvaluationError

_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tokenizer.*")
MOST_TOKENS = 1024  # of a text, where neither tokenizer nor model says how many it takes


class TextScorer:
    """A model of transformers for texts, in float32 on `device`, and the base model's tokenizer.

    `auto_class` is the class of transformers that picks the model's own one, such as AutoModelForCausalLM; `task`
    tells in messages what it is needed for. A new scorer holds the base model's weights.
    """

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
        self.base_folder, self.identity = base_folder, identity
        self.device = torch.device(device)
        self._base = base
        self.model: Any = _load_base(base_folder, auto_class, base.label, task).to(self.device)
        self.tokenizer: Any = _load_tokenizer(base_folder, base.label)
        self._places = _places(self.model, base)
        self.label = base.label

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the model takes."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        known = (positions, self.tokenizer.model_max_length)
        # A tokenizer that knows no limit has a number here that no text reaches.
        limits = [limit for limit in known if isinstance(limit, int) and 0 < limit < 1 << 31]
        return min(limits, default=MOST_TOKENS)

    @property
    def token_count(self) -> int:
        """How many tokens the model knows."""
        return int(self.model.config.vocab_size)

    def load(self, weights: Checkpoint, *, check_frozen: bool = True) -> None:
        """Swap in a model of the base's architecture, under any names that a checkpoint of it may have.

        With `check_frozen` it is the merged model, and must have every tensor. Without, it is a fine-tuned checkpoint:
        what it lacks, and a classification head of another shape, are taken from the base model, as in a merge.

        Raises:
            CheckpointError: a tensor is missing, unknown or shaped differently.
        """
        tensors = self._under_base_names(weights, own=not check_frozen)
        self.label = f"{weights.label} (not completely loaded)"
        if self._places is None:
            self.model = self._rebuilt(tensors)
        else:
            with torch.no_grad():
                state = self.model.state_dict()
                for name, stored in self._places.items():
                    state[name].copy_(self._read(tensors, stored))
        self.label = weights.label

    def load_base(self) -> None:
        """Swap the base model's own weights back in."""
        self.load(self._base)

    def _under_base_names(self, weights: Checkpoint, *, own: bool) -> Checkpoint:
        wanted = parameter_shapes(self._base.tensors)
        if wanted == parameter_shapes(weights.tensors):
            return weights
        ties = weight_matrices(self._base.config, self._base.tensors).ties
        try:
            return align(self._base, weights, ties=ties)
        except CheckpointError:
            if not own:
                raise
            return align(self._base, weights, ties=ties, selection=Selection(exclude=HEADS))

    def _read(self, tensors: Checkpoint, name: str) -> torch.Tensor:
        return tensors.read(name) if name in tensors.tensors else self._base.read(name)

    def _rebuilt(self, tensors: Checkpoint) -> Any:
        """A new model, for classes that join or split the tensors of files when they are loaded."""
        kind, config = type(self.model), self.model.config
        self.model = None  # the old one goes before the new one comes
        state = {name: self._read(tensors, name).float() for name in parameter_shapes(self._base.tensors)}
        model = kind.from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
        model.requires_grad_(False)
        return model.eval().to(self.device)


def _load_base(folder: Path, auto_class: Any, label: str, task: str) -> Any:
    try:
        model, found = auto_class.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise EvaluationError(
            f"{label}: the base model cannot be loaded for {task}: {str(error).splitlines()[0]}",
            hint=f"name a base model that {auto_class.__name__} of transformers loads",
        ) from error
    if found["missing_keys"]:
        raise EvaluationError(
            f"{label}: the base model lacks the tensor {min(map(str, found['missing_keys']))!r}, needed for {task}",
            hint="name a base model with a head for the task, as its checkpoints have",
        )
    model.requires_grad_(False)
    return model.eval()


def _load_tokenizer(folder: Path, label: str) -> Any:
    # Without any file, transformers makes up a tokenizer that knows no word at all.
    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        raise EvaluationError(
            f"{label}: the base model's repo has no tokenizer",
            hint=f"it must hold its vocabulary: one of {', '.join(_VOCABULARIES)}",
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{label}: the base model's tokenizer cannot be read: {str(error).splitlines()[0]}",
            hint="the base model's repo must hold its tokenizer files",
        ) from error


def _places(model: Any, base: Checkpoint) -> Mapping[str, str] | None:
    """Where each parameter of the model stands in the base's files; None if it is not there by a mere other name."""
    found_class = find_model_class(base.config, base.tensors)
    known = found_class.own_names if isinstance(found_class, ModelClass) else {}
    stored = {known.get(name, name): name for name in parameter_shapes(base.tensors)}
    ties = dict(getattr(model, "all_tied_weights_keys", {}))
    found = {name: stored[name] for name, _ in _parameters(model) if name in stored}
    rest = [name for name, _ in _parameters(model) if name not in found and ties.get(name) not in found]
    return None if rest else found


def _parameters(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter, one that is shared under each of its names."""
    yield from model.named_parameters(remove_duplicate=False)
