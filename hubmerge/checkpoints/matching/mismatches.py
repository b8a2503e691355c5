"""Mismatches between a checkpoint and the base model: one error for all of them, and one rule that excludes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.causes import (
    DEPTHS,
    EXPERTS,
    PARTS,
    VOCABULARY,
    WIDTHS,
    different_settings,
    inner_models,
    missing_layers,
    other_prefix,
    own_head,
)
from hubmerge.checkpoints.matching.components import Parts, layers_of, patterns_for, stack_of
from hubmerge.checkpoints.matching.experts import experts_mismatch
from hubmerge.checkpoints.matching.names import Renaming, nearest, parameter_shapes
from hubmerge.checkpoints.matching.quantized_names import is_quantized_part
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.tensors import TensorInfo, describe_shape
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed, tensors_are

_OTHER_BASE = "set base_model to the model that this checkpoint was fine-tuned from"


@dataclass(frozen=True)
class Mismatches:
    """Tensors of a checkpoint that do not match the base model, and tensors that it lacks.

    Attributes:
        base: the base model.
        checkpoint: the checkpoint that was matched with it.
        selection: the tensors to be merged.
        renaming: the best renaming of the checkpoint's names.
        parts: models inside of the base model.
        matched: tensors that match: name in the base model to name in the checkpoint.
        mismatched: tensors of another shape: name in the base model to name in the checkpoint.
        unexpected: names in the checkpoint that the base model does not have.
        missing: names in the base model that the checkpoint lacks in a component that it has.
    """

    base: Checkpoint
    checkpoint: Checkpoint
    selection: Selection
    renaming: Renaming
    parts: Parts
    matched: Mapping[str, str]
    mismatched: Mapping[str, str]
    unexpected: Sequence[str]
    missing: Sequence[str]

    def __bool__(self) -> bool:
        """Return True if there are any."""
        return bool(self.mismatched or self.unexpected or self.missing)

    def error(self) -> CheckpointError:
        """Return the error to raise: the most general cause that explains the mismatches, and how to resolve it."""
        error = experts_mismatch(self.base, self.checkpoint) or self._quantized()
        if error is not None:
            return error
        cause, hint = next(filter(None, self._causes()))
        details = "; ".join(self._details())
        return self.checkpoint.origin.error(f"{cause}: {details}" if cause else details, hint=hint, tensor=self._first)

    def _causes(self) -> Iterator[tuple[str, str] | None]:
        """Yield causes with hints, the most general last; one that does not apply is None."""
        yield self._other_prefix()
        yield self._own_head()
        yield self._more_models()
        yield self._other_vocabulary()
        yield self._other_model()
        yield self._other_depth()
        way_out = _OTHER_BASE if self.mismatched or self.unexpected else "save the complete checkpoint again"
        yield "", f"{way_out}, or exclude the mismatched tensors: {self._rule()}"

    def _other_prefix(self) -> tuple[str, str] | None:
        own = {name: self.checkpoint.tensors[name].shape for name in self.unexpected}
        others = {name: info.shape for name, info in self.base.tensors.items() if name not in self.matched}
        found = other_prefix(own, others) if own else None
        if found is None:
            return None
        strip, add = (repr(prefix) if prefix else "no prefix" for prefix in found)
        return (
            f"its tensor names begin with {strip}, expected {add} as in the base model {self.base.label}",
            "save the model inside its wrapper with save_pretrained(), or rename the tensors",
        )

    def _own_head(self) -> tuple[str, str] | None:
        only_unexpected = self.unexpected and not (self.mismatched or self.missing)
        if not only_unexpected or not own_head(self.checkpoint, self.base, self.unexpected):
            return None
        return (
            f"it does not tie its head to the embeddings, as the base model {self.base.label} does",
            f"leave it out of the merge: {self._rule()}",
        )

    def _more_models(self) -> tuple[str, str] | None:
        """Return the cause if the checkpoint has the whole base model inside, and other models beside it."""
        names = [name for name in parameter_shapes(self.base.tensors) if self.selection.covers(name)]
        whole = self.unexpected and self.matched.keys() >= set(names)
        if not whole or not inner_models(self.checkpoint) or inner_models(self.base):
            return None
        return (
            f"it has the base model {self.base.label} inside, and other parts beside it",
            f"merge what both have: {self._rule()}; or set base_model to a model with all parts",
        )

    def _other_vocabulary(self) -> tuple[str, str] | None:
        """Return the cause if all mismatched tensors have another number of rows, and the vocabularies differ."""
        pairs = [
            (self.base.tensors[name].shape, self.checkpoint.tensors[own].shape) for name, own in self.mismatched.items()
        ]
        only_rows = all(one[1:] == other[1:] for one, other in pairs)
        found = different_settings(self.checkpoint, self.base, VOCABULARY)
        if not pairs or not only_rows or found is None or self.unexpected or self.missing:
            return None
        hint = (
            "merge token by token with `tokenizer_source: union` and a method that merges all models at once, give the "
            "base model the same tokens with resize_token_embeddings(), or leave out what "
        )
        return (
            f"its vocabulary is not that of the base model {self.base.label} ({found})",
            f"{hint}has a row for each token: {self._rule()}",
        )

    def _other_model(self) -> tuple[str, str] | None:
        if not self._mostly_mismatched():
            return None
        return (
            f"most of its tensors do not match the base model {self.base.label}{self._types()}",
            f"{_OTHER_BASE}, or remove the checkpoint from `models`",
        )

    def _other_depth(self) -> tuple[str, str] | None:
        if not self._has_other_depth():
            return None
        settings = different_settings(self.checkpoint, self.base, DEPTHS)
        lacking = missing_layers(self.missing, [*self.matched, *self.mismatched])
        if settings is None and lacking is not None and self.checkpoint.config and not self.unexpected:
            return (
                f"it is incomplete, without {lacking}",
                "fetch the checkpoint again, or save it again with save_pretrained()",
            )
        return (
            f"its layers are not those of the base model {self.base.label}{f' ({settings})' if settings else ''}",
            f"{_OTHER_BASE}; or, if the checkpoint is incomplete, save it again with save_pretrained()",
        )

    @property
    def _first(self) -> str:
        return next(iter([*self.mismatched.values(), *self.unexpected, *self.missing]))

    def _details(self) -> Iterator[str]:
        base = f"the base model {self.base.label}"
        if self.mismatched:
            target, stored = next(iter(self.mismatched.items()))
            found = describe_shape(self.checkpoint.tensors[stored].shape)
            expected = describe_shape(self.base.tensors[target].shape)
            others = [repr(name) for name in list(self.mismatched.values())[1:]]
            also = f"; also mismatched: {listed(others, most=4)}" if others else ""
            yield f"tensor {stored!r} is {found}, expected {expected} as {target!r} of {base}{also}"
        if self.unexpected:
            first = self.unexpected[0]
            similar = nearest(next(self.renaming.candidates(first)), self.base.tensors)
            hint = f" (nearest name: {similar!r})" if similar else ""
            yield f"{tensors_are(self.unexpected)} not in {base}{hint}"
        if self.missing:
            component = self.parts.component_of(self.missing[0])
            yield f"{tensors_are(self.missing)} missing, expected all tensors that {base} has in {component}"

    def _quantized(self) -> CheckpointError | None:
        """Return the error for a checkpoint or base model in a quantized format, None if neither is."""
        settings = self.checkpoint.config.get("quantization_config")
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        for owner in (self.checkpoint, self.base):
            part = next((name for name in owner.tensors if is_quantized_part(name, owner.tensors)), None)
            if part is not None or (owner is self.checkpoint and settings and self._has_other_parts()):
                cause = f"tensor {part!r} belongs to" if part is not None else "its config.json sets"
                named = f" ({method})" if owner is self.checkpoint and isinstance(method, str) else ""
                return owner.origin.error(
                    f"{cause} a quantized format{named}, which cannot be merged",
                    hint="merge an unquantized version of this model",
                    tensor=part,
                )
        return None

    def _has_other_parts(self) -> bool:
        """Return True if a module of the checkpoint has other tensors in the place of the base model's."""
        modules = {target.rpartition(".")[0] for name in self.unexpected for target in self.renaming.candidates(name)}
        return any(name.rpartition(".")[0] in modules for name in self.missing)

    def _mostly_mismatched(self) -> bool:
        expected = sum(self.selection.covers(name) for name in parameter_shapes(self.base.tensors))
        stored = len(self.matched) + len(self.mismatched) + len(self.unexpected)
        return 2 * len(self.matched) < min(expected, stored)

    def _has_other_depth(self) -> bool:
        """Return True if only one of the two models has some layer of a stack that both have."""
        unexpected = {name for stored in self.unexpected for name in self.renaming.candidates(stored)}
        return _has_further_layers(unexpected, self.base.tensors) or _has_further_layers(
            self.missing, [*self.matched, *self.mismatched]
        )

    def _types(self) -> str:
        """Return why two models do not match, in words: another type, or other sizes."""
        found, expected = (owner.config.get("model_type") for owner in (self.checkpoint, self.base))
        if found and expected and found != expected:
            return f" ({found}, expected {expected})"
        sizes = different_settings(self.checkpoint, self.base, (*WIDTHS, *PARTS, *DEPTHS, *EXPERTS))
        return f" ({sizes})" if sizes else ""

    def _rule(self) -> str:
        names = [*self.mismatched, *self.unexpected, *self.missing]
        return self.selection.excluding(patterns_for(names, [*self.matched, *self.matched.values()]))


def rule_for_all(names: Sequence[str], checkpoints: Sequence[Checkpoint], selection: Selection) -> str:
    """Return the shortest recipe rule that selects only tensors which all checkpoints have.

    Args:
        names: the base model's tensors.
        checkpoints: the checkpoints under the base model's names.
        selection: the rule so far.
    """
    having = {name: sum(name in checkpoint.tensors for checkpoint in checkpoints) for name in names}
    shared = [name for name in names if having[name] == len(checkpoints)]
    partly = [name for name in names if 0 < having[name] < len(checkpoints)]
    excluded, included = patterns_for(partly, shared), patterns_for(shared, partly)
    if selection.include or len(excluded) <= len(included):
        return selection.excluding(excluded)
    return selection.including(included)


def matched_twice(base: Checkpoint, checkpoint: Checkpoint, target: str, stored: tuple[str, str]) -> CheckpointError:
    """Return the error for two tensors of a checkpoint that match the same tensor of the base model."""
    return checkpoint.origin.error(
        f"tensors {stored[0]!r} and {stored[1]!r} both match {target!r} of the base model {base.label}",
        hint="save the checkpoint again with save_pretrained(), which writes each tensor under one name",
        tensor=stored[1],
    )


def not_floating(base: Checkpoint, checkpoint: Checkpoint, target: str, info: TensorInfo) -> CheckpointError:
    """Return the error for a tensor of a checkpoint that has integers where the base model has floats."""
    found, expected = (str(one.dtype).removeprefix("torch.") for one in (info, base.tensors[target]))
    return checkpoint.origin.error(
        f"tensor {info.name!r} is stored as {found}, expected a floating-point dtype "
        f"({target!r} of the base model {base.label} is {expected})",
        hint="merge an unquantized version of this checkpoint",
        tensor=info.name,
    )


def _has_further_layers(names: Iterable[str], others: Iterable[str]) -> bool:
    known = {layer for other in others for layer in layers_of(other)}
    stacks = {stack_of(layer) for layer in known}
    return any(stack_of(layer) in stacks and layer not in known for name in names for layer in layers_of(name))
