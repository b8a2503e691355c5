"""Check that tied tensors, of which only one is merged, have equal values."""

from __future__ import annotations

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.planning.merge_plan import MergePlan


def check_ties(checkpoint: Checkpoint, plan: MergePlan) -> None:
    """Compare the values of tied tensors, of which only one is merged.

    Args:
        checkpoint: the base model, or an aligned checkpoint, which knows its own tied tensors.
        plan: the merge; `plan.left_out` are the base model's tied tensors.

    Raises:
        CheckpointError: the values of a pair differ.
    """
    if isinstance(checkpoint, AlignedCheckpoint):
        checkpoint.check_ties()
        return
    for alias, owner in plan.left_out:
        both = alias in checkpoint.tensors and owner in checkpoint.tensors
        if both and not torch.equal(checkpoint.read(alias), checkpoint.read(owner)):
            raise checkpoint.origin.error(
                f"tensors {alias!r} and {owner!r} differ, though its config.json ties them",
                hint="set `tie_word_embeddings` to false in the base model's config.json",
                tensor=alias,
            )
