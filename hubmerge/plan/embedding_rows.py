"""Rows of the embeddings of a model: the tensors that have them, and their number."""

from __future__ import annotations

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.embeddings import Embeddings, find_embeddings


def embeddings_of(checkpoint: Checkpoint) -> Embeddings:
    """Return the tensors of a model with a row for each token.

    Raises:
        CheckpointError: the class of the model is not known, or has none.
    """
    found = find_embeddings(checkpoint.config, checkpoint.tensors)
    if isinstance(found, UnknownClass):
        raise checkpoint.origin.error(
            f"the rows of its tokens are not known: {found.reason}",
            hint="remove `tokenizer` and `tokenizer_source` from the recipe, or remove the model",
        )
    return found


def rows_of(checkpoint: Checkpoint, facts: Embeddings) -> int:
    """Return the number of rows that all embeddings of a model have.

    Raises:
        CheckpointError: they have different numbers.
    """
    counts = {name: checkpoint.tensors[name].shape[axis] for name, axis in facts.axes.items()}
    if len(set(counts.values())) > 1:
        first, *others = counts.items()
        other = next(one for one in others if one[1] != first[1])
        raise checkpoint.origin.error(
            f"tensor {first[0]!r} has {first[1]} rows of tokens and {other[0]!r} has {other[1]}; expected one number",
            hint="resize the embeddings of the model with resize_token_embeddings() and save it again",
            tensor=first[0],
        )
    return next(iter(counts.values()))
