"""Storage forms of experts: each expert's matrices in tensors of their own, or all joined in 3-D tensors."""

from __future__ import annotations

import re
from typing import Literal

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.errors import CheckpointError

Form = Literal["separate", "joined"]

_SEPARATE = re.compile(r"\.experts\.\d+\.")
_FORMS: dict[Form, str] = {"separate": "each expert in tensors of its own", "joined": "all experts of a layer joined"}
_CONVERT: dict[Form, str] = {
    "separate": "make a model of its class from its config, then model.load_state_dict(tensors) and "
    "model.save_pretrained(folder)",
    "joined": "model = AutoModel.from_pretrained(folder) in transformers 5, then "
    "model.save_pretrained(new_folder, save_original_format=False)",
}


def experts_mismatch(base: Checkpoint, checkpoint: Checkpoint) -> CheckpointError | None:
    """Return the error for a checkpoint whose experts are stored in another form than the base model's.

    None if both have one form, or if one of them has no experts.
    """
    expected, found = _form(base), _form(checkpoint)
    if expected is None or found is None or expected == found:
        return None
    return checkpoint.origin.error(
        f"it stores {_FORMS[found]}, expected {_FORMS[expected]} as in the base model {base.label}",
        hint=f"convert the checkpoint to the form of the base model: {_CONVERT[expected]}",
    )


def _form(checkpoint: Checkpoint) -> Form | None:
    if any(_SEPARATE.search(name) for name in checkpoint.tensors):
        return "separate"
    joined = any(len(info.shape) == 3 and ".experts." in name for name, info in checkpoint.tensors.items())
    return "joined" if joined else None
