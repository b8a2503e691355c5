"""States and checkpoints in memory, for small models that are merged many times over.

They stand where those in files stand, so the arithmetic is that of the same methods by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint, MergePlan, Origin, TensorInfo, TensorSpec
from hubmerge.executor.state import MergeState, StateManifest, TensorRecord
from hubmerge.executor.write_model import merged_value
from hubmerge.methods import Norms


class InMemoryCheckpoint(Checkpoint):
    """A checkpoint whose tensors are read once and kept; what is read must not be changed in place."""

    def __init__(self, checkpoint: Checkpoint, names: Sequence[str]) -> None:
        super().__init__(checkpoint.origin, checkpoint.tensors, checkpoint.config, {})
        self._held = {name: checkpoint.read(name) for name in names}

    def read(self, name: str) -> torch.Tensor:
        """A copy of the tensor, as every checkpoint gives memory of its own."""
        return self._held[name].clone()


class StateDict(Checkpoint):
    """A checkpoint whose tensors are those of a dict, such as a model's `state_dict()`."""

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


class InMemoryState(MergeState):
    """The state after a step, in memory."""

    def __init__(
        self, manifest: StateManifest, accumulated: Mapping[str, torch.Tensor], parts: Mapping[str, torch.Tensor]
    ) -> None:
        self.folder = Path("memory")
        self.manifest = manifest
        self._accumulated = accumulated
        self._held_parts = parts

    def read(self, name: str) -> torch.Tensor:
        """The accumulated delta of one tensor, in memory of its own."""
        return self._accumulated[name].clone()

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Its values, flat, in pieces."""
        return iter(self.read(name).view(-1).split(elements))

    def read_part(self, key: str) -> torch.Tensor | None:
        """A further tensor; None if there is none."""
        part = self._held_parts.get(key)
        return None if part is None else part.clone()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the merged tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self._accumulated.items()}

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> InMemoryState:
        """A state whose accumulated delta is a little different, with norms as they were: to study what follows."""
        return InMemoryState(
            self.manifest, {n: change(values) for n, values in self._accumulated.items()}, self._held_parts
        )

    def verify(self) -> None:
        """Nothing can have changed in memory."""

    def close(self) -> None:
        """Nothing to let go of."""


class InMemoryStateWriter:
    """Collects a state in memory: what `StateWriter` is for folders."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], parts: Sequence[TensorSpec] = ()) -> None:
        self._shapes = dict(shapes)
        self._accumulated: dict[str, torch.Tensor] = {}
        self._parts: dict[str, torch.Tensor] = {}

    def write(self, name: str, accumulated: torch.Tensor) -> None:
        """Keep the accumulated delta of one tensor, laid out as it would be in a file."""
        # Products of transposed layouts differ in the last digit.
        self._accumulated[name] = accumulated.contiguous()

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """The same from pieces of its values."""
        self._accumulated[name] = torch.cat([piece.clone() for piece in pieces]).view(self._shapes[name])

    def write_part(self, key: str, tensor: torch.Tensor) -> None:
        """Keep one of the further tensors."""
        self._parts[key] = tensor.contiguous()

    def finish(
        self,
        *,
        method: str,
        step: int,
        chain: str,
        norms: Norms,
        scale: float,
        tensor_norms: Mapping[str, tuple[float, float]],
    ) -> InMemoryState:
        """The state, complete."""
        records = {name: TensorRecord(*tensor_norms[name], "") for name in self._shapes}
        manifest = StateManifest(
            method, step, chain, norms.task_vectors, norms.accumulated, scale, records, dict.fromkeys(self._parts, "")
        )
        return InMemoryState(manifest, {name: self._accumulated[name] for name in self._shapes}, self._parts)

    def __enter__(self) -> InMemoryStateWriter:
        return self

    def __exit__(self, *details: object) -> None:
        pass


class InMemoryModel:
    """The merged model after a step, computed tensor by tensor when it is asked for: what a scorer can load.

    A scorer takes models of one `label` for the same.
    """

    def __init__(
        self,
        base: Checkpoint,
        state: MergeState,
        plan: MergePlan,
        *,
        label: str = "the merged model",
        input_dtype: torch.dtype | None = None,
    ) -> None:
        self.label = label
        self.tensors: dict[str, TensorInfo] = dict(base.tensors)
        self._base, self._state, self._input_dtype = base, state, input_dtype
        self._planned = {tensor.name: tensor for tensor in plan.tensors}

    def read(self, name: str) -> torch.Tensor:
        """One tensor of the merged model, rounded as it would be written.

        Raises CheckpointError if a value does not fit into the dtype.
        """
        planned = self._planned.get(name)
        if planned is None:
            return self._base.read(name)
        return merged_value(self._base, self._state, planned, self._input_dtype)
