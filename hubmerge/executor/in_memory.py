"""States, checkpoints and models in memory, for small models that are merged many times.

They replace those in files, so the same code does the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint, MergePlan, Origin, TensorInfo
from hubmerge.executor.read_out import ReadOut
from hubmerge.executor.state import State, StateManifest
from hubmerge.executor.state_writer import AnyStateWriter, StateSummary
from hubmerge.executor.write_model import merged_value


class InMemoryCheckpoint(Checkpoint):
    """Checkpoint whose tensors are read once and stay in memory."""

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str]) -> None:
        super().__init__(checkpoint.origin, checkpoint.tensors, checkpoint.config, {})
        self._values = {name: checkpoint.read(name) for name in names}

    def read(self, name: str) -> torch.Tensor:
        """Return a copy of the tensor."""
        return self._values[name].clone()


class StateDict(Checkpoint):
    """Checkpoint whose tensors are those of a dict, such as a model's `state_dict()`."""

    def __init__(self, label: str, values: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        infos = {
            name: TensorInfo(name, tuple(value.shape), value.dtype, "memory", 0, value.numel() * value.element_size())
            for name, value in values.items()
        }
        super().__init__(Origin(label), infos, config, {})
        self._values = values

    def read(self, name: str) -> torch.Tensor:
        """Return a copy of the tensor on the CPU."""
        return self._values[name].detach().to("cpu", copy=True).contiguous()


class InMemoryState(State):
    """State after a step, in memory."""

    def __init__(
        self, manifest: StateManifest, accumulated: Mapping[str, torch.Tensor], parts: Mapping[str, torch.Tensor]
    ) -> None:
        super().__init__(manifest)
        self._accumulated = accumulated
        self._parts = parts

    @property
    def label(self) -> str:
        """The name in messages."""
        return "the state in memory"

    def read(self, name: str) -> torch.Tensor:
        """Return a copy of the accumulated delta of one tensor."""
        return self._accumulated[name].clone()

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a copy of its values, flat, in pieces."""
        return iter(self.read(name).view(-1).split(elements))

    def read_part(self, key: str) -> torch.Tensor | None:
        """Return a copy of a further tensor; None if there is none."""
        part = self._parts.get(key)
        return None if part is None else part.clone()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the merged tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self._accumulated.items()}

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> InMemoryState:
        """Return a state with `change` applied to every accumulated delta, for studies; norms and statistics stay."""
        averaged = set(self.manifest.averaged)
        changed = {name: values if name in averaged else change(values) for name, values in self._accumulated.items()}
        return InMemoryState(self.manifest, changed, self._parts)


class InMemoryStateWriter(AnyStateWriter):
    """Writer of a state in memory."""

    in_memory = True

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = dict(shapes)
        self._accumulated: dict[str, torch.Tensor] = {}
        self._parts: dict[str, torch.Tensor] = {}

    def write(self, name: str, accumulated: torch.Tensor) -> None:
        """Store the accumulated delta of one tensor in C order, as in a file."""
        # Products of transposed layouts differ in the last digit.
        self._accumulated[name] = accumulated.contiguous()

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Store it from pieces of its values."""
        self._accumulated[name] = torch.cat([piece.clone() for piece in pieces]).view(self._shapes[name])

    def write_part(self, key: str, tensor: torch.Tensor) -> None:
        """Store one of the further tensors."""
        self._parts[key] = tensor.contiguous()

    def finish(self, summary: StateSummary) -> InMemoryState:
        """Return the complete state; it has no checksums."""
        manifest = summary.manifest(dict.fromkeys(self._shapes, ""), dict.fromkeys(self._parts, ""))
        return InMemoryState(manifest, {name: self._accumulated[name] for name in self._shapes}, self._parts)


class InMemoryModel:
    """Merged model after a step, computed tensor by tensor when it is read, for scorers.

    A scorer treats models with the same `label` as the same model.
    """

    def __init__(
        self,
        base: Checkpoint,
        state: State,
        plan: MergePlan,
        *,
        label: str = "the merged model",
        input_dtype: torch.dtype | None = None,
        read_out: ReadOut | None = None,
    ) -> None:
        self.label = label
        self.tensors: dict[str, TensorInfo] = dict(base.tensors)
        self._base, self._state, self._input_dtype, self._read_out = base, state, input_dtype, read_out
        self._planned = {tensor.name: tensor for tensor in plan.tensors}
        self._tied = dict(plan.left_out)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor of the merged model, rounded as it would be written.

        Raises:
            CheckpointError: a value does not fit into the dtype.
        """
        planned = self._planned.get(self._tied.get(name, name))
        if planned is None:
            return self._base.read(name)
        return merged_value(self._base, self._state, planned, self._input_dtype, self._read_out)
