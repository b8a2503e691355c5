"""How much disk and memory a run takes, from its plan: bounds of what is there at one time, nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hubmerge.checkpoints import MergePlan, PlannedTensor
from hubmerge.executor.parallel.scheduling import SPARE_ELEMENTS, available_cpus
from hubmerge.executor.stats.similarity import sketch_specs
from hubmerge.methods import Method, method_named
from hubmerge.stream.stream import Stream
from merge_recipes import TensorParameters

STATES_AT_ONCE = 4
"""The one being made, those of two steps that are not recorded yet, and the one that the first of these came from."""
MODELS_AT_ONCE = 4
"""Those of three steps that are not recorded yet, and of the last recorded one, which goes when the next is."""
STEPS_AT_ONCE = 16
"""So many are merged at a time at most, then there is a state, wanted or not: bounds what an interruption costs, and
the files that are open."""
METADATA_BYTES = 1 << 20
"""Headers and figures of a state, or the card, report and picture of a model."""

PROCESS_BYTES = 390_000_000
"""Python and torch, and transformers where it has to be asked about a model."""
BUFFERS_BYTES = 90_000_000
"""Stacks of threads, buffers of kernels, free blocks that are kept."""
OTHER_COPIES = 4
PIECEWISE_COPIES = 2
"""A tensor that goes piece by piece is in memory whole where its file cannot be read so."""
EVALUATION_BYTES = 600_000_000
"""Libraries of evaluation and what one batch takes."""

_ITEM_BYTES = 8


def method_of(stream: Stream, merge: MergePlan) -> Method:
    """The method of a stream, in the form that its entries ask for."""
    method = method_named(stream.recipe.merge_method)
    parameters_for = TensorParameters(method.Parameters, stream.recipe, stream.entries[0])
    return method.variant_for(parameters_for(merge.merged[0].name))


def state_bytes(stream: Stream, merge: MergePlan) -> int:
    """Size of the last state: the accumulated delta, what the method keeps beside it, the sketches of all steps."""
    method = method_of(stream, merge)
    parts = [shape for tensor in merge.merged for shape in _parts(method, tensor)]
    sketches = sketch_specs(range(1, stream.length + 1), len(merge.merged))
    return merge.state_bytes + _ITEM_BYTES * sum(map(math.prod, parts)) + sum(spec.nbytes for spec in sketches)


def work_bytes(
    stream: Stream, merge: MergePlan, steps: range, *, state: int, model: int, downloads: bool = False
) -> int:
    """Room in the work folder for doing `steps`, where a state has `state` bytes and a model's folder `model`.

    Without what evaluation prepares and without the checkpoints, of which some have yet to come if it `downloads`.
    """
    if not steps:
        return 0
    before = steps.start > 1
    single = downloads or stream.recipe.fetch == "ranges" or method_of(stream, merge).surveys_model
    ends = sum(single or stream.needs_state(step) for step in steps) + len(steps) // STEPS_AT_ONCE
    models = sum(stream.needs_model(step) for step in steps)
    return min(STATES_AT_ONCE, before + ends) * (state + METADATA_BYTES) + min(MODELS_AT_ONCE, before + models) * (
        model + METADATA_BYTES
    )


def merging_bytes(merge: MergePlan, method: Method, workers: int | None = None) -> int:
    """Memory that merging takes on so many workers (one for each CPU if None), beside that of the process."""
    costs = sorted((_worked_on_bytes(method, tensor) for tensor in merge.merged), reverse=True)
    together = sum(costs[: workers or available_cpus()])
    # Tensors that are worked on at one time share a budget, see `as_done`.
    spare = _ITEM_BYTES * SPARE_ELEMENTS * _copies(method)
    return BUFFERS_BYTES + min(together, costs[0] + spare)


def memory_bytes(stream: Stream, merge: MergePlan) -> int:
    """Memory of a process that does a run; with evaluation, one model in float32 is in it."""
    total = PROCESS_BYTES + merging_bytes(merge, method_of(stream, merge))
    if stream.recipe.evaluate is None:
        return total
    return total + EVALUATION_BYTES + 4 * sum(tensor.elements for tensor in merge.tensors)


def _parts(method: Method, tensor: PlannedTensor) -> Sequence[tuple[int, ...]]:
    return list(method.state_parts(tensor.shape).values())


def _copies(method: Method) -> int:
    return PIECEWISE_COPIES if _goes_in_pieces(method) else method.matrix_copies


def _goes_in_pieces(method: Method) -> bool:
    return method.elementwise and not method.surveys_model


def _worked_on_bytes(method: Method, tensor: PlannedTensor) -> int:
    """Return the memory that one tensor takes while it is absorbed."""
    elements = tensor.elements
    parts = sum(map(math.prod, _parts(method, tensor)))
    if _goes_in_pieces(method):
        return _ITEM_BYTES * (PIECEWISE_COPIES * elements + 2 * parts)
    if method.surveys_model:
        return _ITEM_BYTES * method.matrix_copies * elements
    if tensor.action != "merge-matrix":
        return _ITEM_BYTES * OTHER_COPIES * elements
    side, matrix = max(tensor.shape[-2:]), math.prod(tensor.shape[-2:])
    experts = OTHER_COPIES * elements if len(tensor.shape) == 3 else 0
    return _ITEM_BYTES * (experts + method.matrix_copies * matrix + method.square_copies * side**2)
