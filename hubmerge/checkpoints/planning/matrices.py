"""Which tensors are weight matrices: the 2-D weights of linear layers, as the model's own class says.

The fused weights of experts, one 3-D tensor of (experts, m, n), are as many matrices as there are experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.checkpoints.matching.names import match_names, parameter_shapes
from hubmerge.checkpoints.model_class.model_class import model_class
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

_LOOKUP_TABLES = ("embed", "wte", "wpe", "shared", "relative_attention_bias")
_BY_NAME = "2-D, named `.weight`, and not an embedding by its name"


@dataclass(frozen=True)
class MatrixRule:
    """The names that are weight matrices, and a sentence that tells how that was decided.

    `ties` maps a name to the one it shares its values with, as far as the model's class says so; `heads` are tensors
    whose shape depends on the number of classes, as it says too. What no class knows is in `unknown`.
    """

    matrices: frozenset[str]
    sentence: str
    ties: Mapping[str, str]
    heads: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    def is_matrix(self, name: str) -> bool:
        """Whether the tensor is the weight of a linear layer, or the fused weights of several experts."""
        return name in self.matrices


def weight_matrices(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> MatrixRule:
    """Decide for each of the base model's tensors, from its config and the tensors' names and shapes.

    Weights of `Linear` and of GPT-2's `Conv1D`, of routers and experts, and the joined projections of
    `MultiheadAttention`, are matrices; embeddings (and whatever is tied to one), convolutions, norms, biases and
    free parameters are not. What no class in transformers knows is decided by shape and name, and the sentence
    says so.
    """
    shapes = parameter_shapes(tensors)
    by_name = {name for name, shape in shapes.items() if _looks_like_a_matrix(name, shape)}
    try:
        facts = model_class(config, shapes)
        in_model = {facts.own_names.get(name, name): name for name in shapes}
        renaming = match_names(facts.shapes, {own: shapes[name] for own, name in in_model.items()}, facts.name)
    except CheckpointError as error:
        return MatrixRule(
            frozenset(by_name), f"Weight matrices: {_BY_NAME} ({error.message}).", {}, unknown=frozenset(shapes)
        )

    def in_file(name: str) -> str | None:
        target = renaming.target(name, in_model)
        return None if target is None else in_model[target]

    decided = {name for own in facts.shapes if (name := in_file(own)) is not None}
    matrices = {name for own in facts.matrices if (name := in_file(own)) is not None and len(shapes[name]) in (2, 3)}
    heads = {name for own in facts.heads if (name := in_file(own)) is not None}
    undecided = set(shapes) - decided
    sentence = f"Weight matrices: the linear layers of {facts.name}"
    if undecided:
        sentence += f"; for {len(undecided)} of {len(shapes)} tensors, unknown to it: {_BY_NAME}"
    ties = {
        in_file(alias) or next(renaming.candidates(alias)): in_file(owner) or next(renaming.candidates(owner))
        for alias, owner in facts.ties.items()
    }
    matrices |= undecided & by_name
    return MatrixRule(frozenset(matrices), sentence + ".", ties, frozenset(heads), frozenset(undecided))


def is_lookup_table(name: str) -> bool:
    """Whether a tensor is an embedding by its name."""
    return any(word in part for part in name.lower().split(".") for word in _LOOKUP_TABLES)


def _looks_like_a_matrix(name: str, shape: tuple[int, ...]) -> bool:
    parts = name.lower().split(".")
    if len(shape) == 3:
        return "experts" in parts and not parts[-1].endswith("bias")
    return len(shape) == 2 and parts[-1] == "weight" and not is_lookup_table(name)
