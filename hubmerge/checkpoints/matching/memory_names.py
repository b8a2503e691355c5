"""Names of tensors in files and in memory.

`save_pretrained` writes the names that a family of models has always had in files. `torch.save(model.state_dict())`
writes those of the class in memory, and some classes of transformers 5 have changed them.
"""

from __future__ import annotations

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.names import best_renamings, parameter_shapes
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class


def names_in_files(base: Checkpoint, checkpoint: Checkpoint) -> dict[str, str] | None:
    """Return new names for a checkpoint that has the names of the base model's class in memory.

    Returns:
        Every tensor of the checkpoint: the name that the base model has in files, where both stand for one parameter
        of the base model's class, else the tensor's own; mapped to the name in the checkpoint's files. None if no name
        changes, or if transformers does not have the class.
    """
    of_base = find_model_class(base.config, base.tensors)
    of_checkpoint = find_model_class(base.config, checkpoint.tensors)
    if isinstance(of_base, UnknownClass) or isinstance(of_checkpoint, UnknownClass):
        return None
    shapes = parameter_shapes(checkpoint.tensors)
    in_base = names_in_memory(of_base, base)
    own = names_in_memory(of_checkpoint, checkpoint)
    targets = {own_name: base.tensors[name].shape for own_name, name in in_base.items()}
    renamings = best_renamings({name: shapes[stored] for name, stored in own.items()}, targets, of_base.models)
    if len(renamings) > 1:
        return None
    tied = {*of_base.ties, *of_base.ties.values()} - targets.keys()
    names: dict[str, str] = {}
    for own_name, stored in own.items():
        target = renamings[0].target(own_name, targets)
        # A tied tensor that the base model's files lack has the name in memory there.
        lacking = renamings[0].target(own_name, tied) or stored
        names[lacking if target is None else in_base[target]] = stored
    if len(names) != len(own) or all(name == stored for name, stored in names.items()):
        return None
    buffers = {name: name for name in checkpoint.tensors if name not in shapes and name not in names}
    return {**names, **buffers}


def models_inside(checkpoint: Checkpoint) -> list[str]:
    """Return the prefixes in a checkpoint's files of the models that its class holds, such as that of a text model."""
    found = find_model_class(checkpoint.config, checkpoint.tensors)
    if isinstance(found, UnknownClass):
        return []
    places = names_in_memory(found, checkpoint)
    inside = ((path, own, stored) for path in found.models for own, stored in places.items())
    tails = ((own.removeprefix(f"{path}."), stored) for path, own, stored in inside if own.startswith(f"{path}."))
    return list(dict.fromkeys(stored.removesuffix(f".{tail}") for tail, stored in tails if stored.endswith(f".{tail}")))


def names_in_memory(model_class: ModelClass, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the name in memory of each parameter of a checkpoint, mapped to its name in files."""
    return {model_class.own_names.get(name, name): name for name in parameter_shapes(checkpoint.tensors)}
