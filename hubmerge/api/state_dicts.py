"""Merging state dicts in memory, without files, recipes or the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hubmerge.api.merging import named_method, recipe_keys
from hubmerge.api.recipes import load
from hubmerge.errors import UsageError

if TYPE_CHECKING:
    import torch

    from hubmerge.checkpoints import AlignedCheckpoint, Checkpoint, MergePlan
    from hubmerge.executor import InMemoryModel
    from hubmerge.methods import Method


def merge_state_dicts(
    base: Mapping[str, torch.Tensor],
    models: Sequence[Mapping[str, torch.Tensor]],
    *,
    method: str | Method = "opcm",
    parameters: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Merge state dicts in memory; the arithmetic and the checks are those of a run.

    Args:
        base: tensors of the base model, by name.
        models: tensors of the fine-tuned models, in merge order, with the names and shapes of `base`. Components
            that a model lacks as a whole, such as a head, keep the values of the base model. Statistics, such as the
            variances of batch normalization, are averaged whatever the method.
        method: the name of a merge method, or an object of a class derived from `hubmerge.Method`.
        parameters: parameters of the method.
        config: config.json of the base model, which names its linear layers and buffers. Without it, a 2-D `*.weight`
            is a weight matrix unless it is named as an embedding; `running_mean` and `running_var` are statistics.

    Returns:
        All tensors of `base`, in its order, dtypes and devices. No memory is shared with the arguments.

    Raises:
        CheckpointError: names or shapes do not fit together, or a value is not finite.
        RecipeError: a parameter does not fit the method.
        UsageError: there is no model, or a value is not a tensor.

    Example:
        >>> import hubmerge, torch
        >>> base = {"layer.weight": torch.zeros(1, 2)}
        >>> tuned = {"layer.weight": torch.tensor([[1.0, 2.0]])}
        >>> hubmerge.merge_state_dicts(base, [tuned], method="task_arithmetic", parameters={"scaling": 0.5})
        {'layer.weight': tensor([[0.5000, 1.0000]])}
    """
    named = {f"models[{number}]": model for number, model in enumerate(models)}
    _check_tensors({"base": base, **named})
    whole, aligned, plan = _planned(base, named, config or {})
    merged = _merged_model(whole, aligned, plan, method, parameters)
    return {name: merged.read(name).to(tensor.device) for name, tensor in base.items()}


def _planned(
    base: Mapping[str, torch.Tensor], models: Mapping[str, Mapping[str, torch.Tensor]], config: Mapping[str, Any]
) -> tuple[Checkpoint, list[AlignedCheckpoint], MergePlan]:
    """Return the base model, the models aligned with it, and the plan of the merge."""
    from hubmerge.checkpoints import align, make_plan, weight_matrices
    from hubmerge.executor.in_memory import StateDict

    whole = StateDict("base", base, config)
    rule = weight_matrices(whole.config, whole.tensors)
    aligned = [
        align(whole, StateDict(label, tensors, config), ties=rule.ties, buffers=rule.buffers)
        for label, tensors in models.items()
    ]
    return whole, aligned, make_plan(whole, aligned, rule)


def _check_tensors(state_dicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that there is a model beside the base, and that all values are tensors."""
    import torch

    if len(state_dicts) == 1:
        raise UsageError("there is no model to merge into the base", hint="give at least one state dict in `models`")
    for label, tensors in state_dicts.items():
        for key, value in tensors.items():
            if not isinstance(value, torch.Tensor):
                kind = type(value).__name__
                raise UsageError(f"{label}[{key!r}] is not a tensor but {kind}", hint="leave it out of the state dict")


def _merged_model(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    plan: MergePlan,
    method: str | Method,
    parameters: Mapping[str, Any] | None,
) -> InMemoryModel:
    """Merge all models, one after another, and return the merged model after the last one."""
    from hubmerge.executor import InMemoryModel, Merge, StepInput, merge_steps
    from hubmerge.methods import method_named
    from merge_recipes import TensorParameters

    places = [f"./model-{number}" for number in range(1, len(models) + 1)]
    with named_method(method) as name:
        recipe = load(recipe_keys("./base", places, name, parameters)).recipe
        chosen = method_named(name)
    merge, state, read_out = Merge(base, chosen, plan), None, None
    for entry, model in zip(recipe.entries, models, strict=True):
        incoming = StepInput(model, TensorParameters(chosen.Parameters, recipe, entry))
        state, _ = merge_steps(merge, [incoming], state, None, sketches=False)
        read_out = merge.read_out(incoming)
    assert state is not None  # noqa: S101 - there is at least one model
    return InMemoryModel(base, state, plan, read_out=read_out)
