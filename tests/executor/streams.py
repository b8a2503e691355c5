"""Small streams of checkpoints in files, with all the shapes that a model has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import AlignedCheckpoint, Checkpoint, MatrixRule, MergePlan, align, make_plan, open_checkpoint
from hubmerge.executor import ExecutorContext, Merge, StepInput, StepStats, merge_steps, write_merged
from hubmerge.executor.state import MergeState
from hubmerge.methods import Method, method_named
from tests.matrices import decaying

SHAPES: dict[str, tuple[int, ...]] = {
    "embed.weight": (40, 24),
    "block.wide.weight": (24, 96),
    "block.tall.weight": (96, 24),
    "block.square.weight": (48, 48),
    "block.row.weight": (1, 30),
    "block.frozen.weight": (20, 20),
    "block.low.weight": (32, 40),
    "block.wide.bias": (24,),
    "conv.weight": (4, 3, 2, 2),
    "norm.weight": (24,),
    "temperature": (),
}
MATRICES = frozenset(name for name in SHAPES if name.startswith("block.") and name.endswith(".weight"))
StateDict = dict[str, np.ndarray]


def make_base(rng: np.random.Generator) -> StateDict:
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def make_checkpoint(rng: np.random.Generator, base: StateDict) -> StateDict:
    """Return a checkpoint 1e-2 away: one matrix unchanged, one changed in three directions only."""
    moved = {}
    for name, start in base.items():
        if name not in MATRICES:
            moved[name] = start + 1e-3 * rng.standard_normal(start.shape)
        elif name == "block.low.weight":
            moved[name] = start + 1e-3 * rng.standard_normal((32, 3)) @ rng.standard_normal((3, 40))
        elif name == "block.frozen.weight":
            moved[name] = start
        else:
            moved[name] = start + 1e-2 * decaying(rng, *start.shape)
    return moved


def save(folder: Path, values: StateDict, dtype: torch.dtype = torch.float64, **extra: torch.Tensor) -> Path:
    folder.mkdir(parents=True)
    tensors = {name: torch.from_numpy(np.array(value)).to(dtype) for name, value in values.items()}
    save_file({**tensors, **extra}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def loaded(folder: Path) -> StateDict:
    return {
        name: value.to(torch.float64).numpy()
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


@dataclass
class Stream:
    """A base model and checkpoints in files, opened and planned, and what a merge of them is to use."""

    base: Checkpoint
    checkpoints: Sequence[AlignedCheckpoint]
    plan: MergePlan
    options: dict[str, Any] = field(default_factory=dict)

    def merge(
        self,
        folder: Path,
        method: Method | str = "opcm",
        *,
        steps: int | None = None,
        previous: MergeState | None = None,
        parameters: Mapping[str, Any] | None = None,
        sketches: bool = True,
        **context: Any,
    ) -> list[tuple[MergeState, StepStats]]:
        """Merge the checkpoints that follow `previous`, with a state below `folder` for each step."""
        method = method_named(method) if isinstance(method, str) else method
        values = method.Parameters(**(parameters or {}))
        done: list[tuple[MergeState, StepStats]] = []
        first = 0 if previous is None else previous.step
        for checkpoint in self.checkpoints[first:steps]:
            state, (figures,) = merge_steps(
                Merge(self.base, method, self.plan),
                [StepInput(checkpoint, constant(values))],
                previous,
                folder / checkpoint.label,
                chain=f"up to {checkpoint.label}",
                sketches=sketches,
                context=ExecutorContext(**{**self.options, **context}),
            )
            done.append((state, figures))
            previous = state
        return done


def constant(parameters: BaseModel) -> Callable[[str], BaseModel]:
    return lambda _: parameters


def open_stream(
    folder: Path,
    base: StateDict,
    checkpoints: Sequence[StateDict],
    *,
    dtype: torch.dtype = torch.float64,
    base_dtype: torch.dtype | None = None,
    out_dtype: torch.dtype | None = None,
    **buffers: torch.Tensor,
) -> Stream:
    """Write the models into `folder` and open them."""
    opened = open_checkpoint(save(folder / "base", base, base_dtype or dtype, **buffers), "base")
    aligned = [
        align(opened, open_checkpoint(save(folder / f"c{number}", values, dtype), f"c{number}"))
        for number, values in enumerate(checkpoints, start=1)
    ]
    rule = MatrixRule(MATRICES & set(base), "as the test says", {})
    return Stream(opened, aligned, make_plan(opened, aligned, rule, out_dtype=out_dtype))


def merged_values(stream: Stream, state: MergeState, folder: Path, **options: Any) -> StateDict:
    """Write the merged model and read it back."""
    context = ExecutorContext(options.pop("input_dtype", None))
    write_merged(stream.base, state, stream.plan, folder, context=context, **options)
    return loaded(folder)
