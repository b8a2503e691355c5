"""A method's steps on one tensor as a whole: what it is before and after each, and what there is to tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import PlannedTensor
from hubmerge.errors import HubmergeError
from hubmerge.executor.absorb.experts import AbsorbedExperts, absorb_experts
from hubmerge.executor.absorb.step_input import StepInput, TensorStep, grows_beyond, sketch_row
from hubmerge.executor.reading import all_finite
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.linalg import cosine, frobenius_norm, sketch
from hubmerge.methods import Absorbed, Method, TensorInput


class WholeTensor:
    """One tensor on its way through some steps.

    `accumulated` and `parts` are those after the last step so far, `told` what every step had to tell; `length` is
    that of the accumulated delta, None before step 1.
    """

    def __init__(
        self,
        tensor: PlannedTensor,
        accumulated: torch.Tensor,
        length: float | None,
        parts: Mapping[str, torch.Tensor],
        *,
        sketches: bool,
    ) -> None:
        self.tensor = tensor
        self.accumulated = accumulated
        self.length = length
        self.parts = parts
        self.told: list[TensorStep] = []
        self._sketches = sketches

    @property
    def matrices(self) -> list[torch.Tensor]:
        """The accumulated delta's weight matrices: itself, or one for each expert."""
        if self.tensor.action != "merge-matrix":
            return []
        return list(self.accumulated.unbind()) if len(self.tensor.shape) == 3 else [self.accumulated]

    def absorb(
        self,
        incoming: StepInput,
        method: Method,
        read: Callable[[], tuple[torch.Tensor, float]],
        decompositions: Sequence[Any],
        *,
        step: int,
    ) -> None:
        """Take in the task vector that `read` gives, with its length. `decompositions` are of `matrices`, if any.

        Raises CheckpointError naming checkpoint and tensor if the accumulated delta is not finite any more.
        """
        task_vector, length = read()
        similarity = None if self.length is None else cosine(self.accumulated, task_vector, (self.length, length))
        row = sketch_row(length, sketch(self.tensor.name, task_vector)) if self._sketches else torch.empty(0)
        absorbed = self._absorbed(incoming, method, task_vector, decompositions, step)
        del task_vector
        self.length = frobenius_norm(absorbed.accumulated)
        finite = math.isfinite(self.length) or all_finite(absorbed.accumulated)
        if not finite or not all(all_finite(values) for values in self.parts.values()):
            raise grows_beyond(incoming, self.tensor, step)
        expert_ranks = absorbed.ranks if isinstance(absorbed, AbsorbedExperts) else ()
        figures = TensorStats(
            name=self.tensor.name,
            action=self.tensor.action,
            rank=absorbed.rank,
            expert_ranks=expert_ranks,
            directions=min(self.tensor.shape[-2:]) if absorbed.rank is not None or expert_ranks else None,
            removed_share=absorbed.removed_share,
            cosine=similarity,
            task_vector_norm=length,
            accumulated_norm=self.length,
        )
        self.told.append(TensorStep(figures, row))
        # As it would come out of a file: products of other layouts differ in the last digit.
        self.accumulated = absorbed.accumulated.contiguous()

    def _absorbed(
        self,
        incoming: StepInput,
        method: Method,
        task_vector: torch.Tensor,
        decompositions: Sequence[Any],
        step: int,
    ) -> Absorbed:
        parameters = incoming.parameters_for(self.tensor.name)
        whole = TensorInput(self.accumulated, task_vector, parameters, step, self.parts)
        if self.tensor.action != "merge-matrix" or not method.has_matrix_form:
            absorbed = method.absorb(whole)
            self.parts = absorbed.parts
            return absorbed
        known = iter(decompositions)

        def absorb(accumulated: torch.Tensor, task_vector: torch.Tensor) -> Absorbed:
            matrix = TensorInput(accumulated, task_vector, parameters, step, decomposition=next(known, None))
            return method.absorb_matrix(matrix)

        try:
            if len(self.tensor.shape) == 3:
                return absorb_experts(absorb, self.accumulated, task_vector)
            return absorb(self.accumulated, task_vector)
        except LinAlgError as error:
            raise HubmergeError(
                f"{incoming.checkpoint.label}: tensor {self.tensor.name!r}: {error}",
                hint="try another device; if it fails there too, please report it with the checkpoint's name",
            ) from error


def decompose(folds: Sequence[WholeTensor], incoming: StepInput, method: Method) -> list[Sequence[Any]]:
    """What a step can find out of all these tensors at once, for each of them; nothing where the method has no use."""
    found: list[Sequence[Any]] = [() for _ in folds]
    if method.decomposes:
        parameters = [incoming.parameters_for(fold.tensor.name) for fold in folds for _ in fold.matrices]
        known = iter(method.decompose([one for fold in folds for one in fold.matrices], parameters))
        found = [[next(known) for _ in fold.matrices] for fold in folds]
    return found
