"""What is said of a checkpoint that does not fit its base model: everything at once, and one rule that helps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.components import component_of, layers_of, patterns_for
from hubmerge.checkpoints.matching.experts import experts_in_other_form
from hubmerge.checkpoints.matching.names import Renaming, nearest, parameter_shapes
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.errors import CheckpointError

_QUANTIZED_PARTS = frozenset(
    {
        *("qweight", "qzeros", "g_idx"),
        *("weight_packed", "weight_scale", "weight_scale_inv", "weight_scales", "weight_zero_point", "input_scale"),
        *("SCB", "absmax", "quant_map"),
    }
)
"""What the tensors of quantized formats are called, beside the weights that other checkpoints have."""


@dataclass(frozen=True)
class Mismatches:
    """The tensors of a checkpoint that have no place in the base model, and those that it lacks.

    `placed` maps the names in the base model of all others to those in the checkpoint; so does `misshapen` those of
    other shapes. `surplus` are names in the checkpoint, `gaps` names in the base model.
    """

    base: Checkpoint
    checkpoint: Checkpoint
    selection: Selection
    renaming: Renaming
    placed: Mapping[str, str]
    misshapen: Mapping[str, str]
    surplus: Sequence[str]
    gaps: Sequence[str]

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.misshapen or self.surplus or self.gaps)

    def error(self) -> CheckpointError:
        """What to raise: that the checkpoint is quantized, or one of another model, or what has to be left out."""
        in_other_form = experts_in_other_form(self.base, self.checkpoint)
        if in_other_form is not None:
            return in_other_form
        label = self.checkpoint.label
        told = "; ".join(self._told())
        if (quantized := self._quantized()) is not None:
            return quantized
        if self._most_do_not_fit():
            return CheckpointError(
                f"{label}: most of its tensors do not fit the base model {self.base.label}{self._types()}: {told}",
                hint="it was fine-tuned from another model: name that one as base_model, or take this checkpoint out",
            )
        if self._is_of_another_depth():
            return CheckpointError(
                f"{label}: its layers are not those of the base model {self.base.label}: {told}",
                hint="it was fine-tuned from another model, or is not complete: name the base model that it was "
                "fine-tuned from, or fetch all of it",
            )
        return CheckpointError(f"{label}: {told}", hint=f"{self._way_out()}, or leave out what differs: {self._rule()}")

    def _told(self) -> Iterator[str]:
        base = f"the base model {self.base.label}"
        if self.misshapen:
            target, stored = next(iter(self.misshapen.items()))
            shape = describe_shape(self.checkpoint.tensors[stored].shape)
            wanted = describe_shape(self.base.tensors[target].shape)
            others = _listed(list(self.misshapen.values())[1:])
            yield f"tensor {stored!r} is {shape}, {base} has {wanted} in {target!r}" + (
                f"; of another shape as well: {others}" if others else ""
            )
        if self.surplus:
            first = self.surplus[0]
            alike = nearest(next(self.renaming.candidates(first)), self.base.tensors)
            yield f"tensor {first!r}{_more(self.surplus)}: {base} has none of that name" + (
                f", the nearest is {alike!r}" if alike else ""
            )
        if self.gaps:
            yield (
                f"tensor {self.gaps[0]!r}{_more(self.gaps)} of {base} is missing, though the checkpoint has other "
                f"tensors of {component_of(self.gaps[0])}"
            )

    def _quantized(self) -> CheckpointError | None:
        config = self.checkpoint.config.get("quantization_config")
        method = config.get("quant_method") if isinstance(config, Mapping) else None
        for owner in (self.checkpoint, self.base):
            part = next((name for name in owner.tensors if name.rpartition(".")[2] in _QUANTIZED_PARTS), None)
            if part is not None or (owner is self.checkpoint and config):
                told = f"tensor {part!r} belongs to" if part is not None else "its config.json tells of"
                called = f" ({method})" if owner is self.checkpoint and isinstance(method, str) else ""
                return CheckpointError(
                    f"{owner.label}: {told} a quantized format{called}, which cannot be merged",
                    hint="merge an unquantized version of this model",
                )
        return None

    def _most_do_not_fit(self) -> bool:
        wanted = sum(self.selection.covers(name) for name in parameter_shapes(self.base.tensors))
        stored = len(self.placed) + len(self.misshapen) + len(self.surplus)
        return 2 * len(self.placed) < min(wanted, stored)

    def _is_of_another_depth(self) -> bool:
        """Whether a layer is in one of the two models only, in a stack of layers that both have."""
        surplus = {name for stored in self.surplus for name in self.renaming.candidates(stored)}
        return _has_further_layers(surplus, self.base.tensors) or _has_further_layers(
            self.gaps, [*self.placed, *self.misshapen]
        )

    def _types(self) -> str:
        types = [owner.config.get("model_type") for owner in (self.checkpoint, self.base)]
        return f" ({types[0]}, not {types[1]})" if all(types) and types[0] != types[1] else ""

    def _way_out(self) -> str:
        if self.misshapen or self.surplus:
            return "choose the base model it was fine-tuned from"
        return "fetch a complete checkpoint"

    def _rule(self) -> str:
        names = [*self.misshapen, *self.surplus, *self.gaps]
        return self.selection.excluding(patterns_for(names, [*self.placed, *self.placed.values()]))


def rule_for_all(names: Sequence[str], checkpoints: Sequence[Checkpoint], selection: Selection) -> str:
    """The shortest rule that leaves of the base model's `names` only those that all checkpoints have."""
    having = {name: sum(name in checkpoint.tensors for checkpoint in checkpoints) for name in names}
    shared = [name for name in names if having[name] == len(checkpoints)]
    partly = [name for name in names if 0 < having[name] < len(checkpoints)]
    left_out, taken = patterns_for(partly, shared), patterns_for(shared, partly)
    if selection.include or len(left_out) <= len(taken):
        return selection.excluding(left_out)
    return selection.including(taken)


def _has_further_layers(names: Iterable[str], others: Iterable[str]) -> bool:
    known = {layer for other in others for layer in layers_of(other)}
    stacks = {stack for stack, _ in known}
    return any(stack in stacks and (stack, number) not in known for name in names for stack, number in layers_of(name))


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
