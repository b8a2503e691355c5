"""Upper bounds of the disk and memory of a run, computed from its plan."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hubmerge.checkpoints import MergePlan, PlannedTensor
from hubmerge.executor.parallel.scheduling import SPARE_ELEMENTS, available_cpus
from hubmerge.executor.parts import state_parts
from hubmerge.executor.stats.similarity import largest_sketches
from hubmerge.linalg import PIECE
from hubmerge.methods import JointMethod, Method, method_named
from hubmerge.methods import method_of as method_of_recipe
from hubmerge.plan.settings import state_dtype
from hubmerge.stream.stream import STEPS_AT_ONCE, Stream
from merge_recipes import Recipe, TensorParameters

STATES_AT_ONCE = 4
"""The state that is merged now, those of two unpublished batches, and the one before these."""
MODELS_AT_ONCE = 4
"""The models of three unpublished batches, and the last published one, which is removed when the next is published."""
METADATA_BYTES = 1 << 20
"""Headers and statistics of a state, or card, report and picture of a model."""

PROCESS_BYTES = 390_000_000
"""Python, torch and transformers."""
BUFFERS_BYTES = 90_000_000
"""Stacks of threads, buffers of kernels and free blocks of the allocator."""
OTHER_COPIES = 4
"""Float64 copies of a tensor that is not a weight matrix."""
PIECEWISE_COPIES = 2
"""Float64 copies of a tensor that is merged piece by piece, if its file cannot be read in pieces."""
PIECE_COPIES = 3 * STEPS_AT_ONCE
"""Float64 copies of a piece for each worker: of up to 16 steps the values, the task vectors and the results."""
EVALUATION_BYTES = 600_000_000
"""Libraries of the evaluation and one batch."""

_ITEM_BYTES = 8


def method_of(stream: Stream, merge: MergePlan) -> Method:
    """Return the merge method of a stream, in the variant that its parameters select."""
    method = method_named(stream.recipe.merge_method)
    parameters_for = TensorParameters(method.Parameters, stream.recipe, stream.entries[0], merge.positions)
    return method.variant_for(parameters_for(merge.merged[0].name))


def state_bytes(stream: Stream, merge: MergePlan) -> int:
    """Return the size of the last state: accumulated delta, state parts of the method, sketches of task vectors."""
    method = method_of(stream, merge)
    parts = [shape for tensor in merge.merged for shape in _parts(method, tensor)]
    sketches = largest_sketches(stream.length, len(merge.merged))
    item = state_dtype(stream.recipe).itemsize
    return item * (merge.elements + sum(map(math.prod, parts))) + sketches


def work_bytes(
    stream: Stream, merge: MergePlan, steps: range, *, state: int, model: int, downloads: bool = False
) -> int:
    """Return the peak size of the work folder, without prepared evaluation data and checkpoints.

    Args:
        stream: The stream.
        merge: The plan of its tensors.
        steps: The missing steps.
        state: Size of a state in bytes.
        model: Size of the folder of a merged model in bytes.
        downloads: True if a checkpoint has to be downloaded.
    """
    if not steps:
        return 0
    if stream.is_joint:
        return model + METADATA_BYTES
    before = steps.start > 1
    single = downloads or stream.recipe.fetch == "ranges" or method_of(stream, merge).surveys_model
    ends = sum(single or stream.needs_state(step) for step in steps) + len(steps) // STEPS_AT_ONCE
    models = sum(stream.needs_model(step) for step in steps)
    return min(STATES_AT_ONCE, before + ends) * (state + METADATA_BYTES) + min(MODELS_AT_ONCE, before + models) * (
        model + METADATA_BYTES
    )


def merging_bytes(merge: MergePlan, method: Method, workers: int | None = None, *, in_pieces: bool = False) -> int:
    """Return the peak memory of a merge in bytes, without that of the process itself.

    Args:
        merge: The plan of the tensors.
        method: The merge method.
        workers: Number of threads, None for one per CPU.
        in_pieces: True if all files can be read in pieces: a method that merges piece by piece then has no whole tensor
            in memory but its state parts.
    """
    in_pieces = in_pieces and _goes_in_pieces(method)
    costs = sorted((_worked_on_bytes(method, tensor, in_pieces=in_pieces) for tensor in merge.merged), reverse=True)
    together = sum(costs[: workers or available_cpus()])
    if in_pieces:
        return BUFFERS_BYTES + together
    # Tensors that are merged at one time share a budget, see `iterate_completed`.
    spare = _ITEM_BYTES * SPARE_ELEMENTS * _copies(method)
    return BUFFERS_BYTES + min(together, costs[0] + spare)


def memory_bytes(stream: Stream, merge: MergePlan, *, in_pieces: bool = False) -> int:
    """Return the peak memory of a process in bytes, including one model in float32 if the recipe evaluates.

    Args:
        stream: The stream.
        merge: The plan of its tensors.
        in_pieces: True if all files can be read in pieces.
    """
    if stream.is_joint:
        own = joint_bytes(stream, merge)
    else:
        own = merging_bytes(merge, method_of(stream, merge), in_pieces=in_pieces)
    total = PROCESS_BYTES + own
    if stream.recipe.evaluate is None:
        return total
    return total + EVALUATION_BYTES + 4 * sum(tensor.elements for tensor in merge.tensors)


def joint_bytes(stream: Stream, merge: MergePlan, workers: int | None = None) -> int:
    """Return the peak memory of a joint merge in bytes, without that of the process itself."""
    method = joint_method(stream.recipe)
    recipe = stream.recipe.of_slice(0) if stream.recipe.slices else stream.recipe
    largest = merge.largest
    listed = method.base == "model"  # otherwise a base model in the list has no parameters
    entry = next(one for one in recipe.stream() if listed or not recipe.is_base(one))
    parameters_for = TensorParameters(method.Parameters, recipe, entry, merge.positions)
    variant = method.variant_for(parameters_for(largest.name))
    copies = variant.copies + (OTHER_COPIES if variant.blocks == "tensor" else 0)
    blocks = (workers or available_cpus()) * (2 * len(stream.entries) + OTHER_COPIES) * PIECE
    return BUFFERS_BYTES + _ITEM_BYTES * (blocks + copies * (largest.elements + SPARE_ELEMENTS))


def joint_method(recipe: Recipe) -> JointMethod:
    """Return the method of a recipe that merges all models at once."""
    method = method_of_recipe(recipe)
    if not isinstance(method, JointMethod):
        raise TypeError(f"{method.name} merges one checkpoint after another")
    return method


def _parts(method: Method, tensor: PlannedTensor) -> Sequence[tuple[int, ...]]:
    return list(state_parts(method, tensor).values())


def _copies(method: Method) -> int:
    return PIECEWISE_COPIES if _goes_in_pieces(method) else method.matrix_copies


def _goes_in_pieces(method: Method) -> bool:
    return method.elementwise and not method.surveys_model


def _worked_on_bytes(method: Method, tensor: PlannedTensor, *, in_pieces: bool = False) -> int:
    """Return the memory of one tensor during its merge, in bytes."""
    elements = tensor.elements
    parts = sum(map(math.prod, _parts(method, tensor)))
    if in_pieces:
        return _ITEM_BYTES * (min(PIECEWISE_COPIES * elements, PIECE_COPIES * PIECE) + 2 * parts)
    if _goes_in_pieces(method):
        return _ITEM_BYTES * (PIECEWISE_COPIES * elements + 2 * parts)
    if method.surveys_model:
        return _ITEM_BYTES * method.matrix_copies * elements
    if tensor.action != "merge-matrix":
        return _ITEM_BYTES * OTHER_COPIES * elements
    side, matrix = max(tensor.shape[-2:]), math.prod(tensor.shape[-2:])
    experts = OTHER_COPIES * elements if len(tensor.shape) == 3 else 0
    return _ITEM_BYTES * (experts + method.matrix_copies * matrix + method.square_copies * side**2)
