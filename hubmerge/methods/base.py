"""Base class of merge methods: a fold over the stream of task vectors, with a state that can be saved.

    merged model = base model + accumulated delta / scale

A method is arithmetic on tensors. Files, devices, shards, resuming and publishing are not its business.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from hubmerge.support.lazy import torch

Result = TypeVar("Result")
ParametersT_co = TypeVar("ParametersT_co", covariant=True)


class MethodParameters(BaseModel):
    """Parameters of a method. Unknown names are refused, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NoParameters(MethodParameters):
    """Parameters of a method that has none."""


@dataclass(frozen=True)
class TensorInput(Generic[ParametersT_co]):
    """One tensor in one step, as a method receives it. All tensors are float64 and have the same device.

    Nothing here may be changed in place, except the tensors in `parts` that have the shape of the task vector.
    """

    accumulated: torch.Tensor
    """Accumulated delta after the step before, in the shape of the task vector; zeros at step 1."""
    task_vector: torch.Tensor
    """Checkpoint minus base model."""
    parameters: ParametersT_co
    """Parameters of the method for this tensor and this entry of the stream."""
    step: int
    """Number of the step, from 1."""
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """State parts after the step before, by name, see `state_parts` and `matrix_parts`; zeros at step 1."""
    decomposition: Any = None
    """Result of `Method.decompose` for this matrix; None if the method must compute its own."""
    sign: int = 1
    """-1 if the checkpoint is taken out of the merge, see `Method.revokes`."""


@dataclass(frozen=True)
class Absorbed:
    """One tensor after a step.

    Attributes:
        accumulated: the new accumulated delta, float64, in the shape of the task vector.
        parts: the new state parts, all of those that `state_parts` or `matrix_parts` names.
        rank: number of protected directions; None if nothing is projected.
        removed_share: share of the task vector's energy (squared norm) that was removed before it was added.
    """

    accumulated: torch.Tensor
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    rank: int | None = None
    removed_share: float = 0.0


@dataclass(frozen=True)
class Norms:
    """Frobenius norms over all merged tensors together: of the accumulated delta, and of every task vector so far.

    The norm of a task vector that was taken out has a minus sign, so that sums and counts leave it out.
    """

    accumulated: float
    task_vectors: tuple[float, ...]

    @property
    def count(self) -> int:
        """Number of task vectors that are merged."""
        return sum(1 if math.copysign(1.0, norm) > 0.0 else -1 for norm in self.task_vectors)


class Sweep(Protocol):
    """One pass over all merged tensors."""

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        """Yield `look(accumulated, task_vector)` for every merged tensor, in any order, from several threads.

        The results must all be consumed, and combined in a way that does not depend on their order.
        """
        ...


@dataclass(frozen=True)
class ReadInput(Generic[ParametersT_co]):
    """One tensor of a state, as `Method.read` receives it. All tensors are float64 and have the same device."""

    accumulated: torch.Tensor
    """Accumulated delta, in the shape of the tensor."""
    parts: Mapping[str, torch.Tensor]
    """State parts by name."""
    parameters: ParametersT_co
    """Parameters of the method for this tensor."""
    norms: Norms
    """Norms over the whole model."""


class Method(ABC):
    """A merge method. Subclasses set `name`, `source` and `summary` and implement `absorb`; the rest has defaults.

    Attributes:
        name: the name in recipes, `merge_method: NAME`.
        source: paper and equation.
        summary: one line for lists of methods.
        Parameters: the class of the parameters.
        elementwise: the method treats every element of a tensor alone. A tensor is then absorbed in flat pieces that
            fit into the processor's cache, which is several times as fast. State parts are then scalars or have the
            tensor's shape.
        surveys_model: the method needs `prepare_step`, because it must see the whole model before the first tensor.
        decomposes: the method has `decompose`.
        multiplies_together: the method has `absorb_matrices` and `read_matrices` that are faster than one matrix after
            another. They are called on an accelerator, which one matrix would not keep busy.
        reads_state: the method has `read`: the merged delta is computed from the accumulated delta and the state parts,
            and is not the accumulated delta over a scale.
        revokes: a checkpoint can be taken out again: with `sign` -1, `absorb` and `absorb_matrix` undo what they did
            with 1, whatever was merged meanwhile.
        adds: the states of two streams of one base model add up to that of both, see `add`.
        order_free: the order of the entries changes nothing but rounding, with any parameters.
        inputs_last: the method tells the inputs of a weight matrix from its outputs: it needs (outputs, inputs). A
            matrix that the model stores as (inputs, outputs), as GPT-2 does, is given transposed, and the state parts
            are those of the transposed matrix. Without it, matrices come as they are stored.
        state_name: name of the method in states; methods with one name save equal states and can read each other's.
            Empty for the method's own name.
        matrix_copies: float64 copies of a weight matrix in memory while it is absorbed, for the memory estimate.
        square_copies: float64 matrices of (longer side, longer side) in memory besides.

    Example:
        >>> class Sum(Method):
        ...     name, source, summary = "sum", "by definition", "sum of all task vectors"
        ...     def absorb(self, tensor):
        ...         return Absorbed(tensor.accumulated + tensor.task_vector)
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> Sum().absorb(TensorInput(one, one, NoParameters(), step=2)).accumulated
        tensor([2., 2.], dtype=torch.float64)
    """

    name: str
    source: str
    summary: str
    Parameters: type[MethodParameters] = NoParameters
    elementwise: bool = False
    surveys_model: bool = False
    decomposes: bool = False
    multiplies_together: bool = False
    reads_state: bool = False
    revokes: bool = False
    adds: bool = False
    order_free: bool = False
    inputs_last: bool = False
    state_name: str = ""
    matrix_copies: int = 7
    square_copies: int = 0

    @abstractmethod
    def absorb(self, tensor: TensorInput[Any]) -> Absorbed:
        """Add one task vector to the accumulated delta of a tensor of any shape."""

    def absorb_matrix(self, tensor: TensorInput[Any]) -> Absorbed:
        """Add one task vector to the accumulated delta of an (m, n) weight matrix; by default like any tensor.

        Override this if weight matrices are treated differently. Weights of (experts, m, n) arrive as one matrix per
        expert, with the state parts that `matrix_parts` names.
        """
        return self.absorb(tensor)

    def absorb_matrices(self, tensors: Sequence[TensorInput[Any]]) -> Sequence[Absorbed]:
        """Add a task vector to each of several weight matrices; as `absorb_matrix` does, up to rounding.

        Called only if `multiplies_together` is set, with matrices of equal shorter sides.
        """
        return [self.absorb_matrix(tensor) for tensor in tensors]

    def scale(self, norms: Norms, parameters: Any) -> float:
        """Return the positive number that the accumulated delta of the whole model is divided by; 1 by default."""
        return 1.0

    def variant_for(self, parameters: Any) -> Method:
        """Return the variant of the method that the parameters select; by default itself. The name stays."""
        return self

    def state_parameters(self, parameters: Any) -> Mapping[str, Any]:
        """Return those parameters of a step that change the state, by name; by default all.

        The others matter only where the merged model is read. Steps whose parameters agree here have equal states in
        all methods with one `state_name`, so a study merges them once.
        """
        values: dict[str, Any] = parameters.model_dump(mode="json")
        return values

    def statistic_weight(self, parameters: Any) -> float:
        """Return the weight of an entry in the mean of statistics, such as the variances of batch normalization.

        Statistics are averaged and not given to `absorb`. By default the weight is the parameter `weight`, or 1.
        Entries with a weight of 0 or less have no part.
        """
        weight = getattr(parameters, "weight", None)
        return float(weight) if isinstance(weight, (int, float)) else 1.0

    def state_parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return names and shapes of what is saved besides the accumulated delta of a tensor; nothing by default."""
        return {}

    def matrix_parts(self, shape: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
        """Return the state parts of an (m, n) weight matrix, if the method has `absorb_matrix`; nothing by default."""
        return {}

    def read(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of a tensor of any shape, float64. Called only if `reads_state` is set."""
        return tensor.accumulated

    def read_matrix(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of an (m, n) weight matrix; by default like that of any tensor.

        A method without `absorb_matrix` gets the weights of several experts whole, as (experts, m, n).
        """
        return self.read(tensor)

    def read_matrices(self, tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return the merged delta of each of several weight matrices; those of `read_matrix` up to rounding.

        Called only if `multiplies_together` is set, with matrices of equal shorter sides. If it raises LinAlgError,
        the matrices are read one by one.
        """
        return [self.read_matrix(tensor) for tensor in tensors]

    def add(self, one: Absorbed, other: Absorbed) -> Absorbed:
        """Return a tensor of two streams together, from its deltas and state parts in both; by default sums.

        Called only if `adds` is set, for tensors of any shape.
        """
        parts = {name: values + other.parts[name] for name, values in one.parts.items()}
        return Absorbed(one.accumulated + other.accumulated, parts)

    def prepare_step(self, sweep: Sweep, parameters: Any, *, step: int) -> Method:
        """Return the method for this one step, after as many sweeps over the model as it needs.

        Called only if `surveys_model` is set.
        """
        return self

    def decompose(self, accumulated: Sequence[torch.Tensor], parameters: Sequence[Any]) -> Sequence[Any]:
        """Return a decomposition for each accumulated delta, computed together because that is faster.

        Called only if `decomposes` is set, with matrices of equal shorter sides. None makes `absorb_matrix` compute
        its own.
        """
        return [None] * len(accumulated)

    @property
    def has_matrix_form(self) -> bool:
        """True if weight matrices are treated differently from other tensors."""
        return type(self).absorb_matrix is not Method.absorb_matrix
