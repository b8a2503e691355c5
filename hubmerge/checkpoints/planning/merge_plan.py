"""Merge plan: the action for each tensor of the base model, decided from headers alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.matching.copies import CheckpointWithCopies
from hubmerge.checkpoints.matching.names import buffer_reason, nearest
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection, glob_hint
from hubmerge.checkpoints.planning.heads import check_heads
from hubmerge.checkpoints.planning.matrices import MatrixRule
from hubmerge.checkpoints.planning.quantized import is_quantized
from hubmerge.checkpoints.planning.refusals import missing_component, quantized_tensor
from hubmerge.checkpoints.tensors import TensorInfo, TensorSpec
from hubmerge.errors import CheckpointError
from merge_recipes import LayerPositions

Action = Literal["merge-matrix", "merge-other", "average", "keep"]
_STATE_ITEM_BYTES = torch.float64.itemsize


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the merged model.

    Attributes:
        name: its name in the base model's files.
        shape: its shape; a weight matrix is (m, n), or (experts, m, n) where one tensor joins a layer's experts.
        dtype: its dtype in the base model's files.
        out_dtype: the dtype that it is written in.
        action: what the merge does to it.
        reason: the reason for the action, in words.
        never_negative: True for variances and counts, which must not become negative.
        transposed: True for a weight matrix that is stored as (inputs, outputs), as in GPT-2.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    out_dtype: torch.dtype
    action: Action
    reason: str
    never_negative: bool = False
    transposed: bool = False

    @property
    def merged(self) -> bool:
        """True if the merge changes the tensor."""
        return self.action != "keep"

    @property
    def copied(self) -> bool:
        """True if the base model's bytes are written unchanged."""
        return self.action == "keep" and self.dtype == self.out_dtype

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def spec(self) -> TensorSpec:
        """Name, dtype and shape in the files to be written."""
        return TensorSpec(self.name, self.out_dtype, self.shape)

    @property
    def flops(self) -> float:
        """Rough cost of merging one task vector: products with an m x n matrix and one m x m eigenproblem, m <= n."""
        if self.action != "merge-matrix":
            return float(self.elements)
        small, large = sorted(self.shape[-2:])
        return math.prod(self.shape[:-2]) * (6.0 * small**2 * large + 10.0 * small**3)


@dataclass(frozen=True)
class MergePlan:
    """Plan for every tensor of the merged model.

    Attributes:
        tensors: the tensors to be written, in the order of the base model's files.
        left_out: tied tensors of the base model's files that are not written: alias and owner.
        matrix_rule: the rule by which weight matrices were found, a sentence.
        no_class: the reason why weight matrices were found by name alone; None if the model's class is known.
        statistics_rule: the rule by which statistics were found, a sentence; None if no tensor in the files of the base
            model is a buffer, or if statistics are added up like weights.
        copies: tensors that only the base model ties: name, and name in the files of the base model.
        part: which models inside of the base model are merged, and which are kept, in words; None if all are merged.
    """

    tensors: tuple[PlannedTensor, ...]
    left_out: tuple[tuple[str, str], ...]
    matrix_rule: str
    no_class: str | None = None
    statistics_rule: str | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    part: str | None = None

    @cached_property
    def positions(self) -> LayerPositions:
        """Positions of the tensors in the layers, for parameters that change over the layers."""
        return LayerPositions(tensor.name for tensor in self.tensors)

    @property
    def merged(self) -> tuple[PlannedTensor, ...]:
        """Tensors that the merge changes."""
        return tuple(tensor for tensor in self.tensors if tensor.merged)

    @property
    def averaged(self) -> tuple[PlannedTensor, ...]:
        """Merged tensors that are statistics: they are averaged, whatever the method."""
        return tuple(tensor for tensor in self.tensors if tensor.action == "average")

    @property
    def kept(self) -> tuple[PlannedTensor, ...]:
        """Tensors that stay the base model's."""
        return tuple(tensor for tensor in self.tensors if not tensor.merged)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of each tensor to be written."""
        return tuple(tensor.spec for tensor in self.tensors)

    @property
    def counts(self) -> dict[Action, int]:
        """Number of tensors for each action."""
        counted = Counter(tensor.action for tensor in self.tensors)
        actions: tuple[Action, ...] = ("merge-matrix", "merge-other", "average", "keep")
        return {action: counted[action] for action in actions}

    @property
    def elements(self) -> int:
        """Number of elements that the merge changes."""
        return sum(tensor.elements for tensor in self.merged)

    @property
    def written_bytes(self) -> int:
        """Size of the merged model's values in bytes."""
        return sum(spec.nbytes for spec in self.specs)

    @property
    def state_bytes(self) -> int:
        """Size of the accumulated delta in bytes; it is stored in float64."""
        return self.elements * _STATE_ITEM_BYTES

    @property
    def largest(self) -> PlannedTensor:
        """Largest tensor that the merge changes; memory use is a small multiple of its size."""
        return max(self.merged, key=lambda tensor: tensor.elements)

    @property
    def flops_per_step(self) -> float:
        """Rough number of float64 operations for one checkpoint."""
        return sum(tensor.flops for tensor in self.merged)


def make_plan(
    base: Checkpoint,
    checkpoints: Sequence[AlignedCheckpoint],
    rule: MatrixRule,
    *,
    selection: Selection = ALL_TENSORS,
    out_dtype: torch.dtype | None = None,
) -> MergePlan:
    """Plan the merge of checkpoints into a base model.

    A tensor is merged if `selection` covers it and all checkpoints have it.

    Args:
        base: the base model.
        checkpoints: the checkpoints, aligned with `base` under the same selection.
        rule: the kinds of the base model's tensors.
        selection: the tensors to merge.
        out_dtype: the dtype of floating-point tensors in the files; None for each tensor's own dtype.

    Raises:
        CheckpointError: only some checkpoints have a component, a glob matches nothing, a tensor to be merged is
            quantized or in a head for other classes, or nothing is left to merge.
    """
    _check_selection(base, checkpoints, selection)
    left_out = tuple((alias, owner) for alias, owner in rule.ties.items() if {alias, owner} <= base.tensors.keys())
    dropped = {alias for alias, _ in left_out}
    tensors = tuple(
        _planned(info, base, checkpoints, rule, selection, out_dtype)
        for info in base.tensors.values()
        if info.name not in dropped
    )
    check_heads([tensor.name for tensor in tensors if tensor.merged], base, checkpoints, rule, selection)
    changed = {name for checkpoint in checkpoints for name in checkpoint.changed_from(base.origin)}
    copies = base.copies if isinstance(base, CheckpointWithCopies) else {}
    parts = rule.parts.described([tensor.name for tensor in tensors if tensor.merged and tensor.name in changed])
    statistics = _statistics_rule(base, rule)
    plan = MergePlan(tensors, left_out, rule.description, rule.no_class, statistics, copies, parts)
    if not plan.merged:
        raise _nothing_to_merge(base)
    return plan


def _nothing_to_merge(base: Checkpoint) -> CheckpointError:
    return base.origin.error(
        "nothing to merge: no checkpoint has a tensor that `tensors` in the recipe covers",
        hint="widen `tensors: {include: [...], exclude: [...]}` in the recipe, or remove it to merge all tensors",
    )


def _planned(
    info: TensorInfo,
    base: Checkpoint,
    checkpoints: Sequence[AlignedCheckpoint],
    rule: MatrixRule,
    selection: Selection,
    out_dtype: torch.dtype | None,
) -> PlannedTensor:
    quantized = is_quantized(base, info.name) or _is_integer_weight(info, rule)
    cast = out_dtype is not None and info.dtype.is_floating_point and not quantized
    written = out_dtype if out_dtype is not None and cast else info.model_dtype or info.dtype
    reason = selection.reason_against(info.name)
    if reason is None and quantized and not info.dtype.is_floating_point:
        raise quantized_tensor(info, base)
    reason = reason or buffer_reason(info)
    statistic = info.name in rule.buffers.statistics
    if reason is None and rule.buffers.is_kept(info.name):
        reason = rule.buffers.reason(info.name)
    if reason is None:
        reason = _absent(info.name, base, checkpoints, rule, selection)
    if reason is not None:
        return PlannedTensor(info.name, info.shape, info.dtype, written, "keep", reason)
    for owner in (base, *checkpoints):
        if is_quantized(owner, info.name):
            raise quantized_tensor(owner.tensors[info.name], owner)
    action: Action
    if statistic:
        action, reason = "average", "a statistic, not a weight"
    elif rule.is_matrix(info.name):
        action = "merge-matrix"
        fused = len(info.shape) == 3
        reason = f"the weights of {info.shape[0]} experts" if fused else "the 2-D weight of a linear layer"
    else:
        action, reason = "merge-other", "not the weight of a linear layer"
    never_negative = info.name in rule.buffers.variances
    transposed = info.name in rule.transposed
    return PlannedTensor(info.name, info.shape, info.dtype, written, action, reason, never_negative, transposed)


def _is_integer_weight(info: TensorInfo, rule: MatrixRule) -> bool:
    """Return True for integers in place of a weight of the model's class."""
    return not info.dtype.is_floating_point and info.name in rule.spare.known


def _absent(
    name: str, base: Checkpoint, checkpoints: Sequence[AlignedCheckpoint], rule: MatrixRule, selection: Selection
) -> str | None:
    """Return why a tensor that some checkpoints lack is kept; None if all have it."""
    having = [checkpoint for checkpoint in checkpoints if name in checkpoint.tensors]
    if len(having) == len(checkpoints):
        return None
    spare = rule.spare.reason(name)
    if spare is not None:
        return f"{spare}, not in every checkpoint" if having else f"{spare}, in no checkpoint"
    if name in rule.buffers.statistics:
        return rule.buffers.reason(name)
    if having:
        raise missing_component(name, base, checkpoints, having, selection, rule.parts)
    if any(name in checkpoint.alignment.heads for checkpoint in checkpoints):
        return "the checkpoints have heads of their own: the base model's is kept"
    return f"no checkpoint has {rule.parts.component_of(name)}"


def _statistics_rule(base: Checkpoint, rule: MatrixRule) -> str | None:
    if not any(rule.buffers.reason(name) for name in base.tensors):
        return None
    return f"Statistics: {rule.buffers.source}; averaged over the checkpoints, weighted as the entries are."


def _check_selection(base: Checkpoint, checkpoints: Sequence[AlignedCheckpoint], selection: Selection) -> None:
    names = set(base.tensors)
    names |= {tensor.name for checkpoint in checkpoints for tensor in checkpoint.ignored}
    unmatched = selection.unmatched(names)
    if unmatched:
        similar = nearest(unmatched[0], names)
        raise CheckpointError(
            f"`tensors` in the recipe: {unmatched[0]!r} matches no tensor of {base.label} or its checkpoints"
            + (f" (nearest name: {similar!r})" if similar else ""),
            hint=glob_hint(unmatched[0], list(base.tensors)),
        )
