"""An element-wise method's steps on one tensor, piece by piece: what is done with a piece stays in the cache.

Every piece goes through all the steps before the next one is begun, so base model, state and signs are read or made
once, however many steps there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from pydantic import BaseModel

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.executor.absorb.step_input import StepInput, TensorStep, grows_beyond, sketch_row
from hubmerge.executor.in_memory import InMemoryStateWriter
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, not_finite, rounded_pieces
from hubmerge.executor.state import MergeState, StateWriter
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.linalg import Signs, Sketcher, cosine, cosine_of_parts, frobenius_norm, total_norm
from hubmerge.methods import Absorbed, Method, TensorInput

CPU = torch.device("cpu")


class ElementwiseTensor:
    """One tensor that some steps of an element-wise method are done with, on the CPU.

    `parts` are what the method keeps beside the accumulated delta; afterwards, those after the last step.
    """

    def __init__(
        self,
        base: Checkpoint,
        previous: MergeState | None,
        tensor: PlannedTensor,
        parts: Mapping[str, torch.Tensor],
        *,
        input_dtype: torch.dtype | None,
        sketches: bool,
    ) -> None:
        self.parts = parts
        self._base = base
        self._previous = previous
        self._tensor = tensor
        self._input_dtype = input_dtype
        self._sketches = sketches

    def absorb(
        self, incoming: Sequence[StepInput], methods: Sequence[Method], writer: StateWriter | InMemoryStateWriter
    ) -> list[TensorStep]:
        """Do the steps, write the accumulated delta, and return what each step has to tell.

        Raises CheckpointError naming checkpoint and tensor if a value is not finite.
        """
        first = 1 if self._previous is None else self._previous.step + 1
        steps = [
            _Step(self._tensor, number, one, method)
            for number, (one, method) in enumerate(zip(incoming, methods, strict=True), start=first)
        ]
        pieces = self._before()
        *others, last = self._together(steps)
        for group in others:
            pieces = [piece.clone() for piece in self._through(group, pieces)]
        writer.write_pieces(self._tensor.name, self._through(last, pieces))
        return [step.told(sketches=self._sketches) for step in steps]

    def _before(self) -> Iterable[torch.Tensor]:
        """The accumulated delta before the first step."""
        if self._previous is not None:
            return self._previous.read_pieces(self._tensor.name, ELEMENTS_AT_ONCE)
        return torch.zeros((), dtype=torch.float64).expand(self._tensor.elements).split(ELEMENTS_AT_ONCE)

    def _together(self, steps: Sequence[_Step]) -> list[list[_Step]]:
        """Steps in a row whose checkpoints can be read in pieces; every other checkpoint is in memory on its own."""
        groups: list[list[_Step]] = []
        attach = False
        for step in steps:
            in_pieces = step.incoming.checkpoint.can_read_pieces(self._tensor.name)
            if in_pieces and attach:
                groups[-1].append(step)
            else:
                groups.append([step])
            attach = in_pieces
        return groups

    def _through(self, steps: Sequence[_Step], pieces: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The accumulated delta after these steps, piece by piece."""
        name, dtype = self._tensor.name, self._input_dtype
        signs = Signs(name, CPU) if self._sketches else None
        parts = self.parts
        moved = (rounded_pieces(step.incoming.checkpoint, name, dtype) for step in steps)
        for accumulated, start, *values in zip(pieces, rounded_pieces(self._base, name, dtype), *moved, strict=True):
            begin = start.to(torch.float64)
            if signs is not None:
                signs.next(begin.numel())
            length = frobenius_norm(accumulated) if steps[0].number > 1 else 0.0
            parts = self.parts
            for step, value in zip(steps, values, strict=True):
                task_vector = torch.sub(value, begin)
                if not step.barrier(accumulated, length, task_vector, signs):
                    raise not_finite(self._base, step.incoming.checkpoint, name, dtype)
                absorbed = step.absorb(accumulated, parts, task_vector)
                accumulated, parts = absorbed.accumulated, absorbed.parts
                length = step.leave(accumulated)
            yield accumulated
        self.parts = parts


class _Step:
    """One step on one tensor: what it does with every piece, and what it has seen so far."""

    def __init__(self, tensor: PlannedTensor, number: int, incoming: StepInput, method: Method) -> None:
        self.number = number
        self.incoming = incoming
        self.absorb = _absorber(method, incoming.parameters_for(tensor.name), number)
        self._tensor = tensor
        self._sketcher = Sketcher(tensor.elements, CPU)
        # Of every piece: the lengths of task vector and accumulated delta, before and after, and the cosine of them.
        self._lengths: list[float] = []
        self._before: list[float] = []
        self._after: list[float] = []
        self._cosines: list[float | None] = []

    def barrier(self, accumulated: torch.Tensor, length: float, task_vector: torch.Tensor, signs: Signs | None) -> bool:
        """Look at the next piece of the task vector beside the accumulated delta; whether all of it is finite."""
        self._lengths.append(frobenius_norm(task_vector))
        if not math.isfinite(self._lengths[-1]) and not all_finite(task_vector):
            return False
        if self.number > 1:
            self._before.append(length)
            self._cosines.append(cosine(accumulated, task_vector, (length, self._lengths[-1])))
        if signs is not None:
            self._sketcher.add(task_vector, signs)
        return True

    def leave(self, accumulated: torch.Tensor) -> float:
        """Look at what became of the accumulated delta, and return its length."""
        length = frobenius_norm(accumulated)
        if not math.isfinite(length) and not all_finite(accumulated):
            raise grows_beyond(self.incoming, self._tensor, self.number)
        self._after.append(length)
        return length

    def told(self, *, sketches: bool) -> TensorStep:
        """What there is to tell of all pieces together."""
        length = total_norm(self._lengths)
        figures = TensorStats(
            name=self._tensor.name,
            action=self._tensor.action,
            rank=None,
            directions=None,
            removed_share=0.0,
            cosine=cosine_of_parts(self._cosines, self._lengths, self._before) if self.number > 1 else None,
            task_vector_norm=length,
            accumulated_norm=total_norm(self._after),
        )
        return TensorStep(figures, sketch_row(length, self._sketcher.sketch()) if sketches else torch.empty(0))


def _absorber(
    method: Method, parameters: BaseModel, step: int
) -> Callable[[torch.Tensor, Mapping[str, torch.Tensor], torch.Tensor], Absorbed]:
    """Return what one step does with every piece: a function of accumulated delta, state parts and task vector."""

    def absorb(accumulated: torch.Tensor, parts: Mapping[str, torch.Tensor], task_vector: torch.Tensor) -> Absorbed:
        return method.absorb(TensorInput(accumulated, task_vector, parameters, step, parts))

    return absorb
