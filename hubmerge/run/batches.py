"""Batches of steps: the steps that are merged together."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.executor import needs_single_steps
from hubmerge.run.run_context import RunContext
from hubmerge.stream.stream import STEPS_AT_ONCE


def batches_from(context: RunContext, first: int) -> Iterator[range]:
    """Yield the steps from `first` on in batches of at most `STEPS_AT_ONCE`.

    A joint step is merged without the steps before it, so only the last one is a batch.

    A batch ends at a step whose state is kept. A step is a batch of its own if its checkpoint has to be downloaded, so
    that the next download runs during its merge; if disk is to be saved (`fetch: ranges`); and if the method reads the
    whole model before it merges the first tensor.
    """
    stream = context.stream
    if stream.is_joint:
        yield range(stream.length, stream.length + 1)
        return
    single = stream.recipe.fetch == "ranges" or any(
        needs_single_steps(context.merge, context.step_input(step, context.base))
        for step in range(first, stream.length + 1)
    )

    def continues(last: int) -> bool:
        """Return True if the step after `last` belongs to the same batch."""
        downloads = any(context.plan.sources[step].missing_bytes for step in (last, last + 1))
        return not (single or stream.needs_state(last) or downloads)

    while first <= stream.length:
        last = first
        while last < min(stream.length, first + STEPS_AT_ONCE - 1) and continues(last):
            last += 1
        yield range(first, last + 1)
        first = last + 1
