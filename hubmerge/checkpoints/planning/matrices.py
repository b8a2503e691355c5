"""Weight matrices of a model: the 2-D weights of linear layers, by the model's class in transformers.

The joined weights of experts, one 3-D tensor of (experts, m, n), have one matrix for each expert.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hubmerge.checkpoints.matching.buffers import NO_BUFFERS, Buffers
from hubmerge.checkpoints.matching.components import NO_PARTS, Parts
from hubmerge.checkpoints.matching.names import Renaming, best_renamings, parameter_shapes
from hubmerge.checkpoints.matching.spare import NO_SPARE, Spare, prediction_layers
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.planning.class_buffers import buffers_by_name, buffers_of_class, stored_prefix
from hubmerge.checkpoints.planning.name_rule import DESCRIPTION, matrices_by_name
from hubmerge.checkpoints.tensors import TensorInfo


@dataclass(frozen=True)
class MatrixRule:
    """Kinds of a model's tensors, under their names in the files.

    Attributes:
        matrices: weight matrices.
        description: the rule by which they were found, a sentence.
        ties: tied tensors of the model's class: alias to owner.
        heads: tensors whose shape depends on the number of classes.
        unknown: tensors that the class does not have.
        no_class: the reason why there is no class, and all tensors were sorted by name; None if there is a class.
        buffers: tensors that are no weights.
        spare: tensors that the class does not use.
        parts: models inside of the model.
        transposed: the weight matrices that are stored as (inputs, outputs).
    """

    matrices: frozenset[str]
    description: str
    ties: Mapping[str, str]
    heads: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    no_class: str | None = None
    buffers: Buffers = NO_BUFFERS
    spare: Spare = NO_SPARE
    parts: Parts = NO_PARTS
    transposed: frozenset[str] = frozenset()

    def is_matrix(self, name: str) -> bool:
        """Return True if the tensor is the weight of a linear layer, or the joined weights of several experts."""
        return name in self.matrices


def weight_matrices(
    config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], *, untied: Collection[str] = ()
) -> MatrixRule:
    """Find the weight matrices of a model.

    Weights of `Linear` and of GPT-2's `Conv1D`, of routers and experts, and the joined projections of
    `MultiheadAttention` are matrices. Embeddings and tensors tied to them, convolutions, norms, biases and free
    parameters are not. Tensors that no class has are classified by shape and name.

    Args:
        config: the content of config.json.
        tensors: the tensors in the model's files.
        untied: tensors of their own, although the class ties them.
    """
    shapes = parameter_shapes(tensors)
    by_name = matrices_by_name(shapes, config)
    found = find_model_class(config, shapes)
    if isinstance(found, UnknownClass):
        return _rule_by_name(by_name, tensors, config, found.reason)
    in_model = {found.own_names.get(name, name): name for name in shapes}
    renaming, *ambiguous = best_renamings(found.shapes, {own: shapes[name] for own, name in in_model.items()})
    if ambiguous:
        return _rule_by_name(by_name, tensors, config, f"the names of {found.name} match in more than one way")
    names = _ClassNames(found, renaming, in_model)
    if not names.places:
        return _rule_by_name(by_name, tensors, config, f"{found.name} has none of its tensors")
    stored = {name: info for name, info in tensors.items() if name in shapes}
    buffers = buffers_of_class(found, stored, names.places, names.in_file)
    return _rule_of_class(names, buffers, shapes, by_name, untied, prediction_layers(config))


@dataclass(frozen=True)
class _ClassNames:
    """Names in the files of the tensors of a model's class."""

    model: ModelClass
    renaming: Renaming
    in_model: Mapping[str, str]

    @cached_property
    def places(self) -> dict[str, str]:
        """Names in memory to names in the files, for the parameters that the files have."""
        return {own: name for own in self.model.shapes if (name := self.in_file(own)) is not None}

    def in_file(self, name: str) -> str | None:
        """Return the name in the files of a tensor in memory, None if the files do not have it."""
        target = self.renaming.target(name, self.in_model)
        return None if target is None else self.in_model[target]

    def name_of(self, name: str) -> str:
        """Return the name that a tensor in memory has or would have in the files."""
        return self.in_file(name) or next(self.renaming.candidates(name))


def _rule_of_class(
    names: _ClassNames,
    buffers: Buffers,
    shapes: Mapping[str, tuple[int, ...]],
    by_name: set[str],
    untied: Collection[str],
    layers: frozenset[int],
) -> MatrixRule:
    """Return the rule by the model's class; tensors that the class does not have are sorted by name."""
    found, places = names.model, names.places
    unknown = set(shapes) - set(places.values()) - buffers.statistics - buffers.computed - buffers.fixed
    heads = {name for own in found.heads if (name := names.in_file(own)) is not None}
    tied = {own: owner for own, owner in found.ties.items() if names.name_of(own) not in untied}
    linear = _untied_matrices(found.matrices, tied)
    matrices = {name for own in linear if (name := names.in_file(own)) and len(shapes[name]) in (2, 3)}
    spare = Spare(
        unused=frozenset(unknown) - found.converted,
        known=frozenset({*found.shapes, *map(names.name_of, found.shapes), *found.converted}),
        patterns=found.ignored,
        layers=layers,
    )
    return MatrixRule(
        frozenset(matrices | (unknown & by_name)),
        _description(found.name, len(unknown), len(shapes)),
        {names.name_of(alias): names.name_of(owner) for alias, owner in tied.items()},
        frozenset(heads),
        frozenset(unknown),
        buffers=buffers,
        spare=spare,
        parts=Parts({stored_prefix(path, places): kind for path, kind in found.models.items()}),
        transposed=frozenset(name for own in found.transposed & linear if (name := names.in_file(own)) in matrices),
    )


def _untied_matrices(matrices: Collection[str], ties: Mapping[str, str]) -> set[str]:
    """Return the matrices without those that are tied to a table."""
    found = set(matrices)
    for alias, owner in ties.items():
        if not {alias, owner} <= found:
            found -= {alias, owner}
    return found


def _description(class_name: str, unknown: int, total: int) -> str:
    by_name = f"; of {unknown} of {total} tensors that it does not have, {DESCRIPTION}" if unknown else ""
    return f"Weight matrices: the linear layers of {class_name}{by_name}."


def _rule_by_name(
    by_name: set[str], tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], reason: str
) -> MatrixRule:
    shapes = parameter_shapes(tensors)
    buffers = buffers_by_name({name: tensors[name] for name in shapes})
    unknown = frozenset(shapes) - buffers.statistics - buffers.fixed
    description = f"Weight matrices: {DESCRIPTION} ({reason})."
    spare = Spare(layers=prediction_layers(config))
    return MatrixRule(
        frozenset(by_name), description, {}, unknown=unknown, no_class=reason, buffers=buffers, spare=spare
    )
