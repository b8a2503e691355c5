"""The state of several streams together: the sum of theirs, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import torch

from hubmerge.checkpoints import PlannedTensor, TensorSpec
from hubmerge.errors import CheckpointError
from hubmerge.executor.absorb.statistics import finite_norm, moved_mean
from hubmerge.executor.absorb.step_input import Merge, StepInput
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parts import (
    AVERAGE,
    SUM_OF_WEIGHTS,
    part_dtypes,
    part_key,
    rounded,
    state_parts,
)
from hubmerge.executor.reading import all_finite
from hubmerge.executor.state import MergeState, State
from hubmerge.executor.state_writer import StateSummary, StateWriter
from hubmerge.executor.stats.similarity import SKETCH_PREFIX, Sketches, joined_sketches, sketch_specs
from hubmerge.executor.stats.stats import StepStats, TensorStats
from hubmerge.linalg import difference, frobenius_norm, total_norm
from hubmerge.methods import Absorbed, Method, Norms
from hubmerge.methods.readers import saved_name


def add_states(
    merge: Merge,
    states: Sequence[State],
    step_input: StepInput,
    folder: Path,
    *,
    chain: str = "",
    context: ExecutorContext = DEFAULT_CONTEXT,
) -> tuple[MergeState, StepStats]:
    """Write the state of all streams together, as if their checkpoints had been merged one stream after another.

    Args:
        merge: base model, method and plan. The method has `adds`.
        states: the states of the streams, in order.
        step_input: the parameters of the last step.
        folder: the folder of the new state.
        chain: digest of all inputs, saved in the state.
        context: receiver of the tensors that are done.

    Returns:
        The state, and the statistics of its last step: without cosines.

    Raises:
        CheckpointError: a value is not finite, or a state does not have the tensors and parts of the plan.
        MachineError: the state cannot be written.
    """
    method, plan = merge.variant(step_input), merge.plan
    for state in states:
        check_addable(state, merge, method)
    sketches = joined_sketches(states, [tensor.name for tensor in plan.merged])
    specs = _part_specs(merge, method, sketches)
    with StateWriter(folder, merge.shapes, specs, dtype=merge.state_dtype) as writer:
        stats = []
        for tensor in plan.merged:
            stats.append(_add_tensor(merge, method, states, tensor, writer))
            if context.on_tensor is not None:
                context.on_tensor(tensor)
        for key, rows in sketches.parts().items():
            writer.write_part(key, rows)
        return _finish(merge, method, states, step_input, stats, writer, chain)


def _part_specs(merge: Merge, method: Method, sketches: Sketches) -> list[TensorSpec]:
    """Return the names, dtypes and shapes of the parts that a method keeps of each tensor, and of the sketches."""
    specs = [
        TensorSpec(part_key(part, tensor.name), dtypes[part], shape)
        for tensor in merge.plan.merged
        for dtypes in (part_dtypes(method, tensor, merge.state_dtype),)
        for part, shape in state_parts(method, tensor).items()
    ]
    specs += sketch_specs([*sketches.recent], len(merge.plan.merged), joined=bool(sketches.earlier))
    return specs


def check_addable(state: State, merge: Merge, method: Method) -> None:
    """Check that a state has the tensors and the parts of the plan.

    Raises:
        CheckpointError: it does not.
    """
    different = state.first_difference(merge.shapes)
    averaged = set(state.manifest.averaged) ^ {tensor.name for tensor in merge.plan.averaged}
    kept = {key for key in state.manifest.parts if not key.startswith(SKETCH_PREFIX)}
    parts = kept ^ {part_key(part, one.name) for one in merge.plan.merged for part in state_parts(method, one)}
    tensor = different or min(averaged, default=None) or min(parts, default=None)
    if tensor is not None:
        raise CheckpointError(
            f"{state.label}: the state has other tensors than the first one; the first difference is {tensor!r}",
            hint="give all streams the same `tensors`, and checkpoints with the same tensors",
            tensor=tensor,
        )


def _add_tensor(
    merge: Merge, method: Method, states: Sequence[State], tensor: PlannedTensor, writer: StateWriter
) -> TensorStats:
    name = tensor.name
    found = (_read(state, tensor, method) for state in states)
    if tensor.action == AVERAGE:
        total = _rounded(reduce(_average, found), method, tensor, merge.state_dtype)
        base = merge.base.read(name).to(torch.float64)
        norm = finite_norm(difference(total.accumulated, base))
    else:
        total = _rounded(reduce(method.add, found), method, tensor, merge.state_dtype)
        norm = frobenius_norm(total.accumulated)
        finite = math.isfinite(norm) or all_finite(total.accumulated)
        if not finite or not all(all_finite(part) for part in total.parts.values()):
            raise CheckpointError(
                f"tensor {name!r} overflows float64 when the states are added",
                hint="combine fewer streams; the values of one are abnormally large",
                tensor=name,
            )
    writer.write(name, total.accumulated.contiguous())
    for part, values in total.parts.items():
        writer.write_part(part_key(part, name), values)
    newest = states[-1].manifest.tensors[name].task_vector_norm
    return TensorStats(name=name, action=tensor.action, task_vector_norm=newest, accumulated_norm=norm)


def _read(state: State, tensor: PlannedTensor, method: Method) -> Absorbed:
    parts = {}
    for part in state_parts(method, tensor):
        values = state.read_part(part_key(part, tensor.name))
        assert values is not None  # noqa: S101 - `check_addable` compared the keys
        parts[part] = values.to(torch.float64)
    return Absorbed(state.read(tensor.name), parts)


def _rounded(total: Absorbed, method: Method, tensor: PlannedTensor, dtype: torch.dtype) -> Absorbed:
    """Return a sum as a state of a dtype has it."""
    dtypes = part_dtypes(method, tensor, dtype)
    parts = {name: rounded(values, dtypes[name]) for name, values in total.parts.items()}
    return Absorbed(rounded(total.accumulated, dtype), parts)


def _average(one: Absorbed, other: Absorbed) -> Absorbed:
    """Return the mean of a statistic over two streams."""
    weights = [float(each.parts[SUM_OF_WEIGHTS]) for each in (one, other)]
    total = sum(weights)
    kept = {SUM_OF_WEIGHTS: torch.tensor(total, dtype=torch.float64)}
    if not weights[1]:
        return Absorbed(one.accumulated, kept)
    return Absorbed(moved_mean(one.accumulated, other.accumulated, weights[1] / total), kept)


def _finish(
    merge: Merge,
    method: Method,
    states: Sequence[State],
    step_input: StepInput,
    stats: Sequence[TensorStats],
    writer: StateWriter,
    chain: str,
) -> tuple[MergeState, StepStats]:
    own = [tensor for tensor in stats if tensor.action != AVERAGE]
    task_vectors = tuple(norm for state in states for norm in state.manifest.task_vector_norms)
    norms = Norms(total_norm(tensor.accumulated_norm for tensor in own), task_vectors)
    scale = method.scale(norms, merge.model_parameters(step_input))
    step, averaged = len(task_vectors), tuple(tensor.name for tensor in merge.plan.averaged)
    tensor_norms = {one.name: (one.accumulated_norm, one.task_vector_norm) for one in stats}
    name, dtype = saved_name(merge.method), merge.state_dtype
    summary = StateSummary(name, step, chain, norms, scale, tensor_norms, averaged=averaged, dtype=dtype)
    state = writer.finish(summary)
    found = StepStats(
        step=step,
        checkpoint=step_input.checkpoint.label,
        method=method.name,
        task_vector_norm=abs(task_vectors[-1]),
        accumulated_norm=norms.accumulated,
        scale=scale,
        cosine=None,
        removed_share=0.0,
        tensors=tuple(stats),
        averaged=len(averaged) if merge.plan.statistics_rule is not None else None,
        reads_state=method.reads_state,
        revoked=math.copysign(1.0, task_vectors[-1]) < 0.0,
    )
    return state, found
