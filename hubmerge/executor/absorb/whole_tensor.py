"""Steps of a method on one tensor as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.absorb.experts import AbsorbedExperts, absorb_experts
from hubmerge.executor.absorb.step_input import StepInput, TensorStep, overflow_error, sketch_row
from hubmerge.executor.parts import is_turned, part_dtypes, round_own
from hubmerge.executor.reading import all_finite
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.linalg import cosine, frobenius_norm, sketch
from hubmerge.methods import Absorbed, Method, TensorInput


class WholeTensor:
    """One tensor between steps.

    Attributes:
        tensor: its place in the plan.
        accumulated: accumulated delta after the last step so far, float64.
        norm: norm of the accumulated delta; None before step 1.
        parts: state parts after the last step so far.
        steps: the results of the steps so far.
    """

    def __init__(
        self,
        tensor: PlannedTensor,
        accumulated: torch.Tensor,
        norm: float | None,
        parts: Mapping[str, torch.Tensor],
        *,
        sketches: bool,
        state_dtype: torch.dtype = torch.float64,
    ) -> None:
        self.tensor = tensor
        self.accumulated = accumulated
        self.norm = norm
        self.parts = parts
        self.steps: list[TensorStep] = []
        self._sketches = sketches
        self._state_dtype = state_dtype

    @property
    def matrices(self) -> list[torch.Tensor]:
        """The weight matrices of the accumulated delta: itself, or one per expert; none for other tensors."""
        if self.tensor.action != "merge-matrix":
            return []
        return list(self.accumulated.unbind()) if len(self.tensor.shape) == 3 else [self.accumulated]

    def matrix_inputs(
        self, step_input: StepInput, method: Method, task_vector: torch.Tensor, step: int
    ) -> list[TensorInput[Any]]:
        """Return what the method gets in one step, one for each of `matrices`, as it needs them."""
        if not self.matrices:
            return []
        parameters, experts = step_input.parameters_for(self.tensor.name), len(self.tensor.shape) == 3
        turned = is_turned(method, self.tensor)
        vectors = task_vector.unbind() if experts else [task_vector]
        return [
            TensorInput(
                before.T if turned else before,
                vector.T if turned else vector,
                parameters,
                step,
                {name: values[number] for name, values in self.parts.items()} if experts else self.parts,
                sign=step_input.sign,
            )
            for number, (before, vector) in enumerate(zip(self.matrices, vectors, strict=True))
        ]

    def absorb(
        self,
        step_input: StepInput,
        method: Method,
        read: Callable[[], tuple[torch.Tensor, float]],
        decompositions: Sequence[Any] = (),
        *,
        step: int,
        done: Sequence[Absorbed] = (),
    ) -> None:
        """Do one step.

        Args:
            step_input: the input of the step.
            method: the method, prepared for the step.
            read: returns the task vector and its norm.
            decompositions: one for each of `matrices`, or none at all.
            step: number of the step, from 1.
            done: the results of `matrix_inputs`, if they are known.

        Raises:
            CheckpointError: the accumulated delta is no longer finite, or a decomposition failed.
        """
        task_vector, norm = read()
        similarity = None if self.norm is None else cosine(self.accumulated, task_vector, (self.norm, norm))
        row = sketch_row(norm, sketch(self.tensor.name, task_vector)) if self._sketches else torch.empty(0)
        absorbed = self._absorbed(step_input, method, task_vector, (decompositions, done), step)
        del task_vector
        self.norm = after = self._keep(method, absorbed.accumulated)
        finite = math.isfinite(after) or all_finite(self.accumulated)
        if not finite or not all(all_finite(values) for values in self.parts.values()):
            raise overflow_error(step_input, self.tensor, step)
        self.steps.append(TensorStep(_stats(self.tensor, absorbed, similarity, norm, after), row))

    def _keep(self, method: Method, accumulated: torch.Tensor) -> float:
        """Keep the result of a step, rounded as in a state, and return the norm of the accumulated delta."""
        dtypes = part_dtypes(method, self.tensor, self._state_dtype)
        # In C order, as if read from a file: products of other layouts differ in the last digit.
        self.accumulated = round_own(accumulated.contiguous(), self._state_dtype)
        self.parts = {name: round_own(values, dtypes[name]) for name, values in self.parts.items()}
        return frobenius_norm(self.accumulated)

    def _absorbed(
        self,
        step_input: StepInput,
        method: Method,
        task_vector: torch.Tensor,
        known: tuple[Sequence[Any], Sequence[Absorbed]],
        step: int,
    ) -> Absorbed:
        parameters = step_input.parameters_for(self.tensor.name)
        whole = TensorInput(self.accumulated, task_vector, parameters, step, self.parts, sign=step_input.sign)
        if self.tensor.action != "merge-matrix" or not method.has_matrix_form:
            absorbed = method.absorb(whole)
            self.parts = absorbed.parts
            return absorbed
        decompositions, done = (iter(values) for values in known)
        turned = is_turned(method, self.tensor)

        def absorb(accumulated: torch.Tensor, task_vector: torch.Tensor, parts: Mapping[str, torch.Tensor]) -> Absorbed:
            found = next(done, None)
            if found is None:
                if turned:
                    accumulated, task_vector = accumulated.T, task_vector.T
                one = replace(whole, accumulated=accumulated, task_vector=task_vector, parts=parts)
                found = method.absorb_matrix(replace(one, decomposition=next(decompositions, None)))
            return replace(found, accumulated=found.accumulated.T) if turned else found

        try:
            if len(self.tensor.shape) == 3:
                absorbed = absorb_experts(absorb, self.accumulated, task_vector, self.parts)
            else:
                absorbed = absorb(self.accumulated, task_vector, self.parts)
            self.parts = absorbed.parts
            return absorbed
        except LinAlgError as error:
            raise CheckpointError(
                f"{step_input.checkpoint.label}: tensor {self.tensor.name!r}: {error}",
                hint="try another device; if it fails there too, please report it with the checkpoint's name",
                tensor=self.tensor.name,
            ) from error


def _stats(
    tensor: PlannedTensor, absorbed: Absorbed, similarity: float | None, task_vector_norm: float, norm: float
) -> TensorStats:
    """Return the statistics of one step on one tensor; `norm` is that of the new accumulated delta."""
    expert_ranks = absorbed.ranks if isinstance(absorbed, AbsorbedExperts) else ()
    return TensorStats(
        name=tensor.name,
        action=tensor.action,
        rank=absorbed.rank,
        expert_ranks=expert_ranks,
        directions=min(tensor.shape[-2:]) if absorbed.rank is not None or expert_ranks else None,
        removed_share=absorbed.removed_share,
        cosine=similarity,
        task_vector_norm=task_vector_norm,
        accumulated_norm=norm,
    )


def decompose(tensors: Sequence[WholeTensor], step_input: StepInput, method: Method) -> list[Sequence[Any]]:
    """Return the decompositions of all matrices of each tensor, computed together; none if the method needs none."""
    if not method.decomposes:
        return [() for _ in tensors]
    parameters = [step_input.parameters_for(one.tensor.name) for one in tensors for _ in one.matrices]
    matrices = [matrix.T if is_turned(method, one.tensor) else matrix for one in tensors for matrix in one.matrices]
    found = iter(method.decompose(matrices, parameters))
    return [[next(found) for _ in one.matrices] for one in tensors]


def absorb_together(
    tensors: Sequence[WholeTensor],
    step_input: StepInput,
    method: Method,
    read: Callable[[PlannedTensor], tuple[torch.Tensor, float]],
    step: int,
) -> None:
    """Do one step on a batch of tensors whose matrices the method multiplies together; `read` gives task vectors."""
    vectors = [read(one.tensor) for one in tensors]
    inputs = [
        one.matrix_inputs(step_input, method, vector, step) for one, (vector, _) in zip(tensors, vectors, strict=True)
    ]
    found = iter(method.absorb_matrices([matrix for own in inputs for matrix in own]))
    for one, vector, own in zip(tensors, vectors, inputs, strict=True):
        one.absorb(step_input, method, partial(_given, vector), step=step, done=[next(found) for _ in own])


def _given(vector: tuple[torch.Tensor, float]) -> tuple[torch.Tensor, float]:
    return vector
