"""What a merge method is: a fold over the stream of task vectors, with a state that can be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict

from hubmerge.support.lazy import torch

Result = TypeVar("Result")


class MethodParameters(BaseModel):
    """Parameters of a method. Unknown names are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoParameters(MethodParameters):
    """For methods that have nothing to set."""


@dataclass(frozen=True)
class Absorbed:
    """One tensor after a step: the new accumulated delta, same shape as the task vector, float64.

    `rank` is the number of protected directions, None where nothing is projected; `removed_share` the share
    of the task vector's energy that was taken out before it was added. `error` is how far a method that was told
    to save time is from its exact form: length of the difference over length of the task vector, None if exact.
    """

    accumulated: torch.Tensor
    rank: int | None = None
    removed_share: float = 0.0
    error: float | None = None


@dataclass(frozen=True)
class Norms:
    """Lengths over all merged tensors together: of the accumulated delta, and of every task vector so far."""

    accumulated: float
    task_vectors: tuple[float, ...]


class Method(Protocol):
    """A merge method: merged model = base model + accumulated delta / scale after every step.

    Tensors are float64; at step 1 the accumulated delta is zero. Inputs are never changed in place. A method
    knows no files and no network.
    """

    @property
    def name(self) -> str:
        """What recipes call it."""
        ...

    @property
    def source(self) -> str:
        """Paper and equation."""
        ...

    @property
    def Parameters(self) -> type[MethodParameters]:  # noqa: N802 - names a class
        """The class of its parameters."""
        ...

    def absorb(self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: Any, *, step: int) -> Absorbed:
        """Take one (m, n) weight matrix of the task vector into the accumulated delta."""
        ...

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: Any, *, step: int
    ) -> torch.Tensor:
        """The same for every other tensor: bias, norm, embedding, convolution."""
        ...

    def scale(self, norms: Norms, parameters: Any) -> float:
        """What the accumulated delta is divided by: one positive number for the whole model."""
        ...


class Sweep(Protocol):
    """Look at all merged tensors once."""

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        """`look(accumulated, task_vector)` of every merged tensor, in any order; several may run at the same time.

        What comes of it has to be used up to the end, and combined so that the order does not matter.
        """
        ...


@runtime_checkable
class SurveyingMethod(Protocol):
    """A method that has to know something of the whole model before it absorbs the first tensor."""

    def surveyed(self, sweep: Sweep, parameters: Any, *, step: int) -> Method:
        """The method for this one step, with what it learned from as many sweeps as it needs."""
        ...


@runtime_checkable
class ChoosingMethod(Protocol):
    """A method that has several forms and tells by its parameters which one is meant."""

    def chosen(self, parameters: Any) -> Method:
        """The method in the form that the parameters ask for; its name stays the same."""
        ...


@runtime_checkable
class DecomposingMethod(Protocol):
    """A method that begins with something of the accumulated delta alone, which is found faster for many matrices."""

    def decompose(self, accumulated: Sequence[torch.Tensor], parameters: Sequence[Any]) -> Sequence[Any]:
        """For each of these matrices, whose shorter sides are equal, what `absorb` is to be given; None for nothing."""
        ...

    def absorb(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: Any,
        *,
        step: int,
        decomposition: Any = None,
    ) -> Absorbed:
        """See `Method`. Without a decomposition it finds its own; one that is given is used up."""
        ...


@runtime_checkable
class ElementwiseMethod(Protocol):
    """A method that treats every element by itself, in matrices as in other tensors.

    A tensor is then absorbed in flat pieces, by `absorb_other` or, of a `PartedMethod`, `absorb_parts`. The parts of
    such a method are single numbers.
    """

    @property
    def elementwise(self) -> Literal[True]:
        """What tells such a method."""
        ...


@dataclass(frozen=True)
class PartedTensor:
    """One tensor after a step of a `PartedMethod`: the accumulated delta and the other parts, all float64."""

    accumulated: torch.Tensor
    parts: Mapping[str, torch.Tensor]


@runtime_checkable
class PartedMethod(Protocol):
    """A method whose state is more than the accumulated delta; it treats all tensors alike, in this one function.

    `absorb` and `absorb_other` of such a method are not called.
    """

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what is kept beside the accumulated delta of a tensor of this shape."""
        ...

    def absorb_parts(
        self,
        accumulated: torch.Tensor,
        parts: Mapping[str, torch.Tensor],
        task_vector: torch.Tensor,
        parameters: Any,
        *,
        step: int,
    ) -> PartedTensor:
        """Take one tensor in; at step 1 the accumulated delta and all parts are zero.

        Parts of the tensor's shape are the method's to change and to give back; nothing else is.
        """
        ...


def not_without(step: str) -> NotImplementedError:
    """What a method raises that is asked to absorb before it was made ready."""
    return NotImplementedError(f"call {step} first and use what it returns")
