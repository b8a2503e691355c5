"""Steps of an elementwise method on one tensor, piece by piece.

Every piece goes through all steps before the next one is begun. So a piece stays in the cache, and base model, state
and signs are read or made once, however many steps there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.absorb.step_input import Merge, StepInput, TensorStep, overflow_error, sketch_row
from hubmerge.executor.parallel.context import CPU
from hubmerge.executor.parts import rounded
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, not_finite, rounded_pieces
from hubmerge.executor.state import State
from hubmerge.executor.state_writer import AnyStateWriter
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.linalg import Signs, Sketcher, cosine, cosine_of_parts, frobenius_norm, total_norm
from hubmerge.methods import Absorbed, Method, TensorInput


class ElementwiseTensor:
    """One tensor in a batch of steps of an elementwise method, on the CPU.

    `parts` are the state parts before the first step; after `absorb`, those after the last step.
    """

    def __init__(
        self,
        merge: Merge,
        previous: State | None,
        tensor: PlannedTensor,
        parts: Mapping[str, torch.Tensor],
        *,
        input_dtype: torch.dtype | None,
        sketches: bool,
    ) -> None:
        self.parts = parts
        self._base = merge.base
        self._previous = previous
        self._tensor = tensor
        self._input_dtype = input_dtype
        self._sketches = sketches
        self._state_dtype = merge.state_dtype

    def absorb(
        self, inputs: Sequence[StepInput], methods: Sequence[Method], steps: range, writer: AnyStateWriter
    ) -> list[TensorStep]:
        """Do the steps, write the accumulated delta, and return the result of each step.

        Raises:
            CheckpointError: a value is not finite; the message names checkpoint and tensor.
        """
        passes = [
            _Pass(self._tensor, number, one, method) for number, one, method in zip(steps, inputs, methods, strict=True)
        ]
        pieces = self._before()
        *others, last = self._groups(passes)
        for group in others:
            pieces = [piece.clone() for piece in self._through(group, pieces)]
        writer.write_pieces(self._tensor.name, self._through(last, pieces))
        return [one.result(sketches=self._sketches) for one in passes]

    def _before(self) -> Iterable[torch.Tensor]:
        """Return the accumulated delta before the first step, in pieces."""
        if self._previous is not None:
            return self._previous.read_pieces(self._tensor.name, ELEMENTS_AT_ONCE)
        return torch.zeros((), dtype=torch.float64).expand(self._tensor.elements).split(ELEMENTS_AT_ONCE)

    def _groups(self, passes: Sequence[_Pass]) -> list[list[_Pass]]:
        """Return runs of steps whose checkpoints can be read in pieces; every other step is a group of its own."""
        groups: list[list[_Pass]] = []
        extends = False
        for one in passes:
            in_pieces = one.step_input.checkpoint.can_read_pieces(self._tensor.name)
            if in_pieces and extends:
                groups[-1].append(one)
            else:
                groups.append([one])
            extends = in_pieces
        return groups

    def _through(self, passes: Sequence[_Pass], pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield the accumulated delta after these steps, piece by piece."""
        name, dtype = self._tensor.name, self._input_dtype
        signs = Signs(name, CPU) if self._sketches else None
        parts = self.parts
        moved = (rounded_pieces(one.step_input.checkpoint, name, dtype) for one in passes)
        for accumulated, start, *values in zip(pieces, rounded_pieces(self._base, name, dtype), *moved, strict=True):
            begin = start.to(torch.float64)
            if signs is not None:
                signs.next(begin.numel())
            norm = frobenius_norm(accumulated) if passes[0].number > 1 else 0.0
            parts = self.parts
            for one, value in zip(passes, values, strict=True):
                # torch converts all dtypes but 8-bit floats in the subtraction itself.
                task_vector = torch.sub(value if value.dtype.itemsize > 1 else value.to(torch.float64), begin)
                if not one.measure(accumulated, norm, task_vector, signs):
                    raise not_finite(self._base, one.step_input.checkpoint, name, dtype)
                absorbed = one.absorb(accumulated, parts, task_vector)
                accumulated, parts = rounded(absorbed.accumulated, self._state_dtype), absorbed.parts
                norm = one.measure_result(accumulated)
            yield accumulated
        self.parts = parts


class _Pass:
    """One step on one tensor, with measurements of the pieces so far."""

    def __init__(self, tensor: PlannedTensor, number: int, step_input: StepInput, method: Method) -> None:
        self.number = number
        self.step_input = step_input
        self._method = method
        self._parameters = step_input.parameters_for(tensor.name)
        self._tensor = tensor
        self._sketcher = Sketcher(tensor.elements, CPU)
        # Of every piece: norms of the task vector and of the accumulated delta before and after, and their cosine.
        self._norms: list[float] = []
        self._before: list[float] = []
        self._after: list[float] = []
        self._cosines: list[float | None] = []

    def absorb(
        self, accumulated: torch.Tensor, parts: Mapping[str, torch.Tensor], task_vector: torch.Tensor
    ) -> Absorbed:
        """Do the step on one piece."""
        sign = self.step_input.sign
        return self._method.absorb(
            TensorInput(accumulated, task_vector, self._parameters, self.number, parts, sign=sign)
        )

    def measure(self, accumulated: torch.Tensor, norm: float, task_vector: torch.Tensor, signs: Signs | None) -> bool:
        """Measure the next piece of the task vector; return False if a value is not finite."""
        self._norms.append(frobenius_norm(task_vector))
        if not math.isfinite(self._norms[-1]) and not all_finite(task_vector):
            return False
        if self.number > 1:
            self._before.append(norm)
            self._cosines.append(cosine(accumulated, task_vector, (norm, self._norms[-1])))
        if signs is not None:
            self._sketcher.add(task_vector, signs)
        return True

    def measure_result(self, accumulated: torch.Tensor) -> float:
        """Measure the new piece of the accumulated delta and return its norm."""
        norm = frobenius_norm(accumulated)
        if not math.isfinite(norm) and not all_finite(accumulated):
            raise overflow_error(self.step_input, self._tensor, self.number)
        self._after.append(norm)
        return norm

    def result(self, *, sketches: bool) -> TensorStep:
        """Return the result of all pieces together."""
        norm = total_norm(self._norms)
        stats = TensorStats(
            name=self._tensor.name,
            action=self._tensor.action,
            cosine=cosine_of_parts(self._cosines, self._norms, self._before) if self.number > 1 else None,
            task_vector_norm=norm,
            accumulated_norm=total_norm(self._after),
        )
        return TensorStep(stats, sketch_row(norm, self._sketcher.sketch()) if sketches else torch.empty(0))
