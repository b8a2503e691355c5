"""The two forms that experts have in files: each expert's matrices by themselves, or all joined in 3-D tensors."""

from __future__ import annotations

import re

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.errors import CheckpointError

_BY_ITSELF = re.compile(r"\.experts\.\d+\.")
_FORMS = {True: "each expert by itself", False: "its experts joined"}
_INTO_FORM = {
    True: "make a model of its class from its config, give it these tensors with load_state_dict() and call "
    "save_pretrained(folder)",
    False: "load it with from_pretrained() of transformers 5 and call save_pretrained(folder, "
    "save_original_format=False)",
}


def experts_in_other_form(base: Checkpoint, checkpoint: Checkpoint) -> CheckpointError | None:
    """How to refuse a checkpoint whose experts are joined though those of the base are not, or the reverse.

    None if both are in one form, or one of them has no experts.
    """
    wanted, found = _by_itself(base), _by_itself(checkpoint)
    if wanted is None or found is None or wanted == found:
        return None
    return CheckpointError(
        f"{checkpoint.label}: it stores {_FORMS[found]}, the base model {base.label} {_FORMS[wanted]}",
        hint=f"bring it into the form of the base model: {_INTO_FORM[wanted]}",
    )


def _by_itself(checkpoint: Checkpoint) -> bool | None:
    if any(_BY_ITSELF.search(name) for name in checkpoint.tensors):
        return True
    joined = any(len(info.shape) == 3 and ".experts." in name for name, info in checkpoint.tensors.items())
    return False if joined else None
