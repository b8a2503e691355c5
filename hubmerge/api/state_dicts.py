"""Merging state dicts in memory, without files, recipes or the Hub.

Components that a model lacks as a whole, such as a head, keep the values of the base model. Statistics, such as the
variances of batch normalization, are averaged whatever the method. Without a config, a 2-D `*.weight` is a weight
matrix unless it is named as an embedding; `running_mean` and `running_var` are statistics. Tensors that the class of
the config ties have equal values, unless a model has them with different ones: then the merged model has both. No
memory is shared with the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.api.merging import named_method, recipe_keys
from hubmerge.api.recipes import load
from hubmerge.errors import UsageError
from hubmerge.support.text import counted

if TYPE_CHECKING:
    import torch

    from hubmerge.checkpoints import AlignedCheckpoint, Checkpoint, MergePlan
    from hubmerge.executor import InMemoryModel
    from hubmerge.executor.joint import JointModel
    from hubmerge.methods import AnyMethod, Method
    from merge_recipes import Recipe, TensorParameters


def merge_state_dicts(
    base: Mapping[str, torch.Tensor] | None,
    models: Sequence[Mapping[str, torch.Tensor]],
    *,
    method: str | AnyMethod = "opcm",
    parameters: Mapping[str, Any] | None = None,
    own_parameters: Sequence[Mapping[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """Merge state dicts in memory; the arithmetic and the checks are those of a run. Statistics are averaged.

    Args:
        base: tensors of the base model; None for a method that needs none: the first model lends names and dtypes.
        models: tensors of the fine-tuned models in merge order, named as in `base`. A missing head keeps base values.
        method: the name of a merge method, or an object of a class derived from `Method` or `JointMethod`.
        parameters: parameters of the method.
        own_parameters: for each model, the parameters that it has alone, such as `{"weight": 0.5}`.
        recipe: further keys of a recipe: `{"form": "joint"}`, or `{"seed": 1}` for a method that draws random numbers.
        config: config.json of the base model, with the kinds and ties of its tensors. Without it, names decide, and
            the second dimension of a matrix counts as its inputs: give it for GPT-2, which stores matrices transposed.

    Returns:
        All tensors of `base` in its order, dtypes and devices, and tied ones that a model has with other values.

    Raises:
        CheckpointError: names or shapes do not fit together, or a value is not finite.
        RecipeError: a parameter does not fit the method.
        UsageError: there is no model, or a value is not a tensor.

    Example:
        >>> import hubmerge, torch
        >>> base, tuned = {"layer.weight": torch.zeros(1, 2)}, {"layer.weight": torch.tensor([[1.0, 2.0]])}
        >>> hubmerge.merge_state_dicts(base, [tuned], method="task_arithmetic", parameters={"scaling": 0.5})
        {'layer.weight': tensor([[0.5000, 1.0000]])}
    """
    named, own = _checked_tensors(base, models), _own_parameters(own_parameters, len(models))
    with named_method(method) as name:
        keys = _recipe_keys(name, parameters, own, recipe or {}, names_base=base is not None)
        return _merged(models[0] if base is None else base, named, load(keys).recipe, config or {})


def _recipe_keys(
    method: str,
    parameters: Mapping[str, Any] | None,
    own: Sequence[Mapping[str, Any]],
    further: Mapping[str, Any],
    *,
    names_base: bool,
) -> dict[str, Any]:
    """Return the keys of a recipe that merges one model for each mapping of own parameters."""
    places = [f"./model-{number}" for number in range(1, len(own) + 1)]
    keys = {**further, **recipe_keys("./base", places, method, parameters)}
    entries = zip(keys["models"], own, strict=True)
    keys["models"] = [{**entry, "parameters": dict(values)} for entry, values in entries]
    if not names_base:
        del keys["base_model"]
    return keys


def _merged(
    start: Mapping[str, torch.Tensor],
    models: Mapping[str, Mapping[str, torch.Tensor]],
    recipe: Recipe,
    config: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """Return the merged tensors on the devices of those that the merge starts from."""
    merge = _StateDicts(recipe, *_planned(start, models, config))
    merged = merge.model()
    sources = {name: name for name in start} | dict(merge.plan.copies)
    return {name: merged.read(name).to(start[source].device) for name, source in sources.items()}


def _planned(
    base: Mapping[str, torch.Tensor], models: Mapping[str, Mapping[str, torch.Tensor]], config: Mapping[str, Any]
) -> tuple[Checkpoint, list[AlignedCheckpoint], MergePlan]:
    """Return the base model, the models aligned with it, and the plan of the merge."""
    from hubmerge.checkpoints import align_models, make_plan, weight_matrices
    from hubmerge.executor.in_memory import StateDict

    whole = StateDict("base", base, config)
    rule = weight_matrices(whole.config, whole.tensors)
    opened = [StateDict(label, tensors, config) for label, tensors in models.items()]
    found = align_models(whole, rule, opened)
    return found.base, list(found.aligned), make_plan(found.base, found.aligned, found.rule)


def _own_parameters(values: Sequence[Mapping[str, Any]] | None, count: int) -> Sequence[Mapping[str, Any]]:
    """Return the parameters of each model alone."""
    if values is None:
        return [{}] * count
    if len(values) != count:
        raise UsageError(
            f"own_parameters has {len(values)} mappings for {counted(count, 'model')}",
            hint="give one for each model, {} for none",
        )
    return values


def _checked_tensors(
    base: Mapping[str, torch.Tensor] | None, models: Sequence[Mapping[str, torch.Tensor]]
) -> dict[str, Mapping[str, torch.Tensor]]:
    """Return the models by label, after a check that there is one and that all values are tensors."""
    import torch

    named = {f"models[{number}]": model for number, model in enumerate(models)}
    state_dicts = named if base is None else {"base": base, **named}
    if not named:
        raise UsageError("there is no model to merge into the base", hint="give at least one state dict in `models`")
    for label, tensors in state_dicts.items():
        for key, value in tensors.items():
            if not isinstance(value, torch.Tensor):
                kind = type(value).__name__
                raise UsageError(f"{label}[{key!r}] is not a tensor but {kind}", hint="leave it out of the state dict")
    return named


@dataclass(frozen=True)
class _StateDicts:
    """A recipe, and the opened and planned state dicts in place of its models."""

    recipe: Recipe
    base: Checkpoint
    models: Sequence[Checkpoint]
    plan: MergePlan

    def model(self) -> InMemoryModel | JointModel:
        """Return the merged model."""
        from hubmerge.executor.joint import JointInput, JointMerge, JointModel
        from hubmerge.methods import Method, method_of
        from merge_recipes import TensorParameters

        method = method_of(self.recipe)
        positions = self.plan.positions
        parameters = [
            TensorParameters(method.Parameters, self.recipe, entry, positions) for entry in self.recipe.entries
        ]
        if isinstance(method, Method):
            return self._after_all_steps(method, parameters)
        inputs = [JointInput(*pair) for pair in zip(self.models, parameters, strict=True)]
        has_origin = method.base != "model" and self.recipe.names_base
        seed = self.recipe.seed or 0
        return JointModel(JointMerge(self.base, method, self.plan, inputs, has_origin=has_origin, seed=seed))

    def _after_all_steps(self, method: Method, parameters: Sequence[TensorParameters[Any]]) -> InMemoryModel:
        from hubmerge.executor import InMemoryModel, Merge, StepInput, merge_steps

        merge, state, read_out = Merge(self.base, method, self.plan), None, None
        for pair in zip(self.models, parameters, strict=True):
            incoming = StepInput(*pair)
            state, _ = merge_steps(merge, [incoming], state, None, sketches=False)
            read_out = merge.read_out(incoming)
        assert state is not None  # noqa: S101 - there is at least one model
        return InMemoryModel(self.base, state, self.plan, read_out=read_out)
