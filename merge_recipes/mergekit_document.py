"""Recipes in mergekit's form, rewritten as recipes of hubmerge: the keys, and what has no effect.

A slice with the first layers of every model, and a single module, become `models`. Several slices stay, and name the
`models`. Keys and parameters that mergekit ignores are removed with a remark. Everything keeps its line in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from merge_recipes.entry_names import named_entries
from merge_recipes.errors import KeyPath, Problem
from merge_recipes.mergekit import MISPLACED, NO_EFFECT, OTHER_KEYS, OTHER_METHODS, PARAMETERS
from merge_recipes.mergekit_references import Stages
from merge_recipes.mergekit_values import convert_values
from merge_recipes.modules import unfold_several
from merge_recipes.read_yaml import Document
from merge_recipes.rewriting import Rewriting
from merge_recipes.schema import Recipe
from merge_recipes.slices import first_layers, free_name


@dataclass(frozen=True)
class MergekitReading:
    """A recipe's document in hubmerge's form.

    Attributes:
        document: the document.
        problems: what mergekit can do and hubmerge cannot.
        notes: remarks on what has no effect.
        layers: the number of layers from the first one that the only slice has; None without one.
        used: the stages that the document refers to, each with the key path of its first use.
    """

    document: Document
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    layers: int | None = None
    used: Mapping[str, KeyPath] = field(default_factory=dict)


def read_mergekit(document: Document, stages: Stages | None = None) -> MergekitReading:
    """Return a recipe in hubmerge's form. Values of an unexpected type are left to the checks of the form.

    Args:
        document: the document.
        stages: the documents of its file; None if it is the only one.
    """
    if not isinstance(document.data, dict):
        return MergekitReading(document)
    read = convert_values(document, stages)
    rewriting = _MergekitRewriting(read.document, dict(read.document.data))
    rewriting.problems += read.problems
    rewriting.notes += read.notes
    rewriting.unfold_modules()
    rewriting.unfold_slices()
    rewriting.remove_keys()
    rewriting.read_dtypes()
    rewriting.read_parameters()
    rewriting.name_entries()
    notes = tuple(rewriting.notes)
    return MergekitReading(rewriting.rewritten(), tuple(rewriting.problems), notes, rewriting.layers, read.used)


@dataclass
class _MergekitRewriting(Rewriting):
    layers: int | None = None

    # Modules and slices

    def unfold_modules(self) -> None:
        modules = self.data.get("modules")
        if not isinstance(modules, dict) or not modules or "models" in self.data or "slices" in self.data:
            return
        if len(modules) > 1:
            unfold_several(self, modules)
            return
        name, module = next(iter(modules.items()))
        if not isinstance(module, dict):
            return
        del self.data["modules"]
        place: KeyPath = ("modules", name)
        for key, value in module.items():
            if key in {"models", "slices"}:
                self.data[key] = value
                self.move((*place, key), (key,))
            elif key != "parameters":
                self.refuse((*place, key), "unknown key; expected models, slices or parameters")
        self.add_level((*place, "parameters"), module.get("parameters"))

    def unfold_slices(self) -> None:
        slices = self.data.get("slices")
        if not isinstance(slices, list) or not slices or not isinstance(slices[0], dict):
            return
        if "models" in self.data:
            self.refuse(("slices",), "the recipe has models and slices, expected one of them")
            del self.data["slices"]
            return
        sources = slices[0].get("sources")
        self.layers = first_layers(sources) if len(slices) == 1 and "stack" not in self.data else None
        if self.layers is None or not isinstance(sources, list):
            self.read_slices(slices)
            return
        del self.data["slices"]
        without = [{key: value for key, value in source.items() if key != "layer_range"} for source in sources]
        self.data["models"] = without
        self.move(("slices", 0, "sources"), ("models",))
        self.read_slice(slices[0])

    def read_slices(self, slices: list[Any]) -> None:
        """List the models of slices that cut or stack layers, each once; the first one that lends a base model."""
        self.data["slices"] = [self.without_residual(number, piece) for number, piece in enumerate(slices)]
        models: dict[str, dict[str, str]] = {}
        for number, piece in enumerate(slices):
            if not isinstance(piece, dict):
                continue
            if isinstance(piece.get("base_model"), str) and "base_model" not in self.data:
                self.data["base_model"] = piece["base_model"]
                self.move(("slices", number, "base_model"), ("base_model",))
            sources = piece.get("sources")
            for index, source in enumerate(sources if isinstance(sources, list) else []):
                model = source.get("model") if isinstance(source, dict) else None
                if isinstance(model, str) and model not in models:
                    self.move(("slices", number, "sources", index), ("models", len(models)))
                    models[model] = {"model": model, **free_name(model, models.values())}
        if models:
            self.data["models"] = list(models.values())

    def without_residual(self, number: int, piece: Any) -> Any:
        """Return a slice without the key that mergekit ignores."""
        if not isinstance(piece, dict) or "residual_weight" not in piece:
            return piece
        self.remark(("slices", number, "residual_weight"), "residual_weight has no effect: mergekit ignores it too")
        return {key: value for key, value in piece.items() if key != "residual_weight"}

    def read_slice(self, piece: Mapping[str, Any]) -> None:
        """Read the keys beside the sources of the only slice."""
        for key, value in piece.items():
            place: KeyPath = ("slices", 0, key)
            if key == "base_model" and self.data.setdefault("base_model", value) != value:
                self.refuse(place, "the slice and the recipe have different base models; expected one")
            elif key == "base_model":
                self.move(place, ("base_model",))
            elif key == "residual_weight":
                self.remark(place, "residual_weight has no effect: mergekit ignores it too")
            elif key not in {"sources", "parameters"}:
                self.refuse(place, "unknown key; expected sources, parameters or base_model")
        self.add_level(("slices", 0, "parameters"), piece.get("parameters"))

    # Keys and parameters

    def remove_keys(self) -> None:
        """Remove the keys that mergekit ignores."""
        method = self.data.get("merge_method")
        is_mergekit = isinstance(method, str) and method in OTHER_METHODS
        for key in self.data.keys() - Recipe.model_fields.keys() - OTHER_KEYS.keys():
            if key in NO_EFFECT:
                reason = "on the merged model"
            elif is_mergekit and key in MISPLACED:
                reason = "at the top level, only under `parameters`"
            elif (key,) in self.document.anchored:
                reason = "but to hold values that other keys repeat"
            else:
                continue
            self.remark((key,), f"{key} has no effect {reason}: mergekit ignores it too")
            del self.data[key]

    def read_dtypes(self) -> None:
        for key in ("dtype", "out_dtype"):
            if isinstance(self.data.get(key), str):
                self.data[key] = self.data[key].removeprefix("torch.")

    def read_parameters(self) -> None:
        if isinstance(self.data.get("parameters"), dict):
            self.data["parameters"] = self.effective(("parameters",), self.data["parameters"], of_model=False)
        models = self.data.get("models")
        if isinstance(models, list):
            self.data["models"] = [self.entry(("models", index), entry) for index, entry in enumerate(models)]
        slices = self.data.get("slices")
        if isinstance(slices, list):
            self.data["slices"] = [self.slice_entries(number, piece) for number, piece in enumerate(slices)]

    def name_entries(self) -> None:
        """Give entries of one default name names of their own: in mergekit, models have no names."""
        models, method = self.data.get("models"), self.data.get("merge_method")
        if isinstance(models, list) and isinstance(method, str) and method in OTHER_METHODS:
            self.data["models"] = named_entries(models)

    def slice_entries(self, number: int, piece: Any) -> Any:
        """Return a slice with the parameters that have an effect."""
        place: KeyPath = ("slices", number)
        piece = self.entry(place, piece, of_model=False)
        if not isinstance(piece, dict) or not isinstance(piece.get("sources"), list):
            return piece
        sources = [self.entry((*place, "sources", index), one) for index, one in enumerate(piece["sources"])]
        return {**piece, "sources": sources}

    def entry(self, place: KeyPath, entry: Any, *, of_model: bool = True) -> Any:
        """Return a model, a source or a slice with the parameters that have an effect."""
        if not isinstance(entry, dict) or not isinstance(entry.get("parameters"), dict):
            return entry
        parameters = self.effective((*place, "parameters"), entry["parameters"], of_model=of_model)
        return {**entry, "parameters": parameters}

    def effective(self, place: KeyPath, parameters: Mapping[str, Any], *, of_model: bool) -> dict[str, Any]:
        """Return the parameters that have an effect, single filters as lists, switches as true or false."""
        method = self.data.get("merge_method")
        known = PARAMETERS.get(method) if isinstance(method, str) else None
        found = {}
        for name, value in parameters.items():
            reason = None if known is None else known.no_effect(name, of_model=of_model)
            if reason is not None:
                self.remark((*place, name), f"{name} has no effect {reason}: mergekit ignores it too")
                continue
            if isinstance(value, dict) and "value" in value and value.keys() <= {"value", "filter"}:
                self.move((*place, name), (*place, name, 0))
                value = [value]
            found[name] = value
        return found
