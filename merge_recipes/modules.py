"""Several modules of a recipe, such as text decoder and vision tower, as one list of models.

Each parameter of a model becomes a list of filters, one or more for each module. A model that a module does not list
has the weight 0 there, which leaves it out. Tensors of no module are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from merge_recipes.errors import KeyPath, format_value
from merge_recipes.gradients import is_gradient
from merge_recipes.mergekit import PARAMETERS
from merge_recipes.rewriting import Rewriting

_FILTERS: dict[str, tuple[str, ...]] = {
    "multi_modal_projector": ("multi_modal_projector.", "mm_projector.", "visual.merger."),
    "vision_tower": ("vision_tower.", "vision_model.", "visual."),
    "encoder": ("encoder.",),
    "decoder": ("decoder.",),
}
"""Parts of the names of the tensors of mergekit's modules. Other names are parts of tensor names themselves."""

_REST = ("text_decoder", "default")
"""Modules of all tensors that no other module has."""

_HINT = (
    "write one document for each module, with `tensors: {include: [...]}`, and use the first one's result in the next"
)


@dataclass
class _Module:
    """A module: its place in the file, the filters of its tensors, and its parameters. No filters for the rest."""

    name: str
    place: KeyPath
    filters: tuple[str, ...]
    parameters: dict[str, Any]
    models: dict[str, tuple[KeyPath, dict[str, Any]]] = field(default_factory=dict)
    """By model its place in the file, and its parameters."""


def unfold_several(rewriting: Rewriting, modules: dict[str, Any]) -> None:
    """Put the models of several modules into `models`; refuse what this form cannot express."""
    found = [_read(rewriting, str(name), module) for name, module in modules.items()]
    del rewriting.data["modules"]
    read = sorted((one for one in found if one is not None), key=_order)
    if len(read) < len(found) or rewriting.problems:
        return
    method = rewriting.data.get("merge_method")
    if sum(not one.filters for one in read) > 1:
        rewriting.refuse(("modules",), f"{' and '.join(_REST)} both mean all other tensors; expected one of them")
        return
    if method == "passthrough":
        _passthrough_as_linear(rewriting, read)
        method = "linear"
    known = PARAMETERS.get(method) if isinstance(method, str) else None
    weighted = known is not None and "weight" in known.model
    if not weighted and len({frozenset(one.models) for one in read}) > 1:
        message = f"modules with different models need a method with weights, which {format_value(method)} has not"
        rewriting.refuse(("modules",), message, _HINT)
        return
    rewriting.data.setdefault("form", "joint")  # one after another, the first models may all have the weight 0
    _write(rewriting, read, weighted=weighted)


def _order(module: _Module) -> tuple[int, int]:
    """Return the place of a module: the projector before the tower it is in, long names first, the rest last."""
    known = list(_FILTERS)
    return (2 if not module.filters else 0, known.index(module.name) if module.name in known else -len(module.name))


def _read(rewriting: Rewriting, name: str, data: Any) -> _Module | None:
    """Return a module, None if it cannot be read."""
    place: KeyPath = ("modules", name)
    if not isinstance(data, dict) or not isinstance(data.get("models"), list):
        what = (
            "slices in one of several modules are not supported" if "slices" in (data or ()) else "models are missing"
        )
        rewriting.refuse(place, f"{what}; expected {{models: [...]}}", "list whole models under `models`")
        return None
    for key in data.keys() - {"models", "parameters"}:
        rewriting.refuse((*place, key), "unknown key; expected models or parameters")
    filters = () if name in _REST else _FILTERS.get(name, (name,))
    found = _Module(name, place, filters, dict(data.get("parameters") or {}))
    for index, item in enumerate(data["models"]):
        at: KeyPath = (*place, "models", index)
        if not isinstance(item, dict) or not isinstance(item.get("model"), str):
            rewriting.refuse(at, "expected {model: ..., parameters: ...}")
            return None
        for key in item.keys() - {"model", "parameters"}:
            rewriting.refuse((*at, key), "unknown key; expected model or parameters")
        found.models[item["model"]] = (at, dict(item.get("parameters") or {}))
    return found


def _passthrough_as_linear(rewriting: Rewriting, modules: list[_Module]) -> None:
    """Copy each module from its model: the sum of the models with weight 1 in their modules, times the scale."""
    message = "passthrough of several modules is merged by linear, with weight 0 in the modules of other models"
    rewriting.remark(("merge_method",), message)
    rewriting.data["merge_method"] = "linear"
    top = dict(rewriting.data.get("parameters") or {})
    scale = top.pop("scale", 1.0)
    rewriting.data["parameters"] = {**top, "normalize": False}
    for module in modules:
        if len(module.models) > 1:
            rewriting.refuse(module.place, f"passthrough takes 1 model for each module, got {len(module.models)}")
        own_scale = module.parameters.pop("scale", scale)
        for _, parameters in module.models.values():
            parameters["weight"] = parameters.pop("scale", own_scale)


def _write(rewriting: Rewriting, modules: list[_Module], *, weighted: bool) -> None:
    """Write `models`, the parameters of each as lists of filters, and the tensors of the modules."""
    models = list(dict.fromkeys(model for module in modules for model in module.models))
    own = set() if not weighted else {"weight"}
    entries = []
    for index, model in enumerate(models):
        places = [module.models[model][0] for module in modules if model in module.models]
        rewriting.move(places[0], ("models", index))
        names = own | {name for module in modules for name in module.models.get(model, ((), {}))[1]}
        parameters = {name: _items(rewriting, modules, model, name) for name in sorted(names)}
        entries.append({"model": model, "parameters": {name: items for name, items in parameters.items() if items}})
    rewriting.data["models"] = entries
    outer = dict(rewriting.data.get("parameters") or {})
    for name in sorted({name for module in modules for name in module.parameters} - own):
        items = _shared_items(rewriting, modules, name)
        after = [] if name not in outer else outer[name] if _has_filters(outer[name]) else [{"value": outer[name]}]
        outer[name] = [*items, *after]
    rewriting.data["parameters"] = outer
    if all(module.filters for module in modules):
        if "tensors" in rewriting.data:
            hint = f"add the module {_REST[0]} for all other tensors, or remove `tensors`"
            rewriting.refuse(("tensors",), "the modules say which tensors are merged", hint)
        rewriting.data["tensors"] = {"include": [f"*{part}*" for module in modules for part in module.filters]}


def _items(rewriting: Rewriting, modules: list[_Module], model: str, name: str) -> list[dict[str, Any]]:
    """Return the values of a parameter of a model, with a filter for each module."""
    top = rewriting.data.get("parameters") or {}
    found: list[dict[str, Any]] = []
    for module in modules:
        if model not in module.models:
            found += _filtered(rewriting, module, module.place, 0.0) if name == "weight" else []
            continue
        place, parameters = module.models[model]
        if name in parameters:
            found += _filtered(rewriting, module, (*place, "parameters", name), parameters[name])
        elif name == "weight" and name in module.parameters:
            found += _filtered(rewriting, module, (*module.place, "parameters", name), module.parameters[name])
        elif name == "weight" and name in top:
            found += _filtered(rewriting, module, ("parameters", name), top[name])
        elif name == "weight" and rewriting.data.get("merge_method") == "linear":
            found += _filtered(rewriting, module, place, 1.0)
    if name == "weight" and found and all(module.filters for module in modules):
        found.append({"value": 1.0})  # of tensors that are not merged
    return found


def _shared_items(rewriting: Rewriting, modules: list[_Module], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for module in modules:
        if name in module.parameters:
            found += _filtered(rewriting, module, (*module.place, "parameters", name), module.parameters[name])
    return found


def _filtered(rewriting: Rewriting, module: _Module, place: KeyPath, value: Any) -> list[dict[str, Any]]:
    """Return a value for the tensors of a module."""
    if isinstance(value, dict) and "value" in value:
        value = [value]
    if not _has_filters(value):
        return [{"filter": part, "value": value} for part in module.filters] or [{"value": value}]
    if module.filters:
        message = f"filters in the module {module.name} are not supported; expected a number or a list of numbers"
        rewriting.refuse(place, message, f"give filters to the module of all other tensors alone, {_REST[0]}")
        return []
    return list(value)


def _has_filters(value: Any) -> bool:
    return isinstance(value, list) and not is_gradient(value)
