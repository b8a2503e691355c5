"""Recipes in mergekit's form, rewritten as recipes of hubmerge: the keys, and what has no effect.

`slices` and `modules` that have all layers of every model become `models`. Keys and parameters that mergekit ignores
are removed with a remark. Everything keeps its line in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from merge_recipes.errors import KeyPath, Problem, format_value
from merge_recipes.gradients import is_gradient
from merge_recipes.mergekit import NO_EFFECT, PARAMETERS, SWITCHES
from merge_recipes.read_yaml import Document, Marks
from merge_recipes.yaml_nodes import Position

_CUT = "hubmerge does not cut or stack layers; expected one slice whose sources all have `layer_range: [0, N]`"


@dataclass(frozen=True)
class MergekitReading:
    """A recipe's document in hubmerge's form.

    Attributes:
        document: the document.
        problems: what mergekit can do and hubmerge cannot.
        notes: remarks on what has no effect.
        layers: the number of layers that a `layer_range` names, which must be all; None without one.
    """

    document: Document
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()
    layers: int | None = None


def read_mergekit(document: Document) -> MergekitReading:
    """Return a recipe in hubmerge's form. Values of an unexpected type are left to the checks of the form."""
    if not isinstance(document.data, dict):
        return MergekitReading(document)
    rewriting = _Rewriting(document, dict(document.data))
    rewriting.unfold_modules()
    rewriting.unfold_slices()
    rewriting.remove_keys()
    rewriting.read_tokenizer()
    rewriting.read_dtypes()
    rewriting.read_parameters()
    return rewriting.reading()


@dataclass
class _Rewriting:
    document: Document
    data: dict[str, Any]
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    keys: dict[KeyPath, Position] = field(default_factory=dict)
    values: dict[KeyPath, Position] = field(default_factory=dict)
    plain: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    layers: int | None = None

    def reading(self) -> MergekitReading:
        marks = self.document.marks
        moved = Marks({**marks.keys, **self.keys}, {**marks.values, **self.values}, {**marks.plain, **self.plain})
        document = replace(self.document, data=self.data, marks=moved, origins=self.origins)
        return MergekitReading(document, tuple(self.problems), tuple(self.notes), self.layers)

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Give the value at `new` the lines of the value that is at `old` in the file."""
        old = self.written(old)
        self.origins[new] = old
        marks, size = self.document.marks, len(old)
        self.keys |= {(*new, *path[size:]): mark for path, mark in marks.keys.items() if path[:size] == old}
        self.values |= {(*new, *path[size:]): mark for path, mark in marks.values.items() if path[:size] == old}
        self.plain |= {(*new, *path[size:]): text for path, text in marks.plain.items() if path[:size] == old}

    def written(self, path: KeyPath) -> KeyPath:
        """Return the key path in the file."""
        return replace(self.document, origins=self.origins).written_path(path)

    def refuse(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(self.document.problem(self.written(path), message, hint))

    def remark(self, path: KeyPath, message: str) -> None:
        self.notes.append(self.document.problem(self.written(path), message, at_key=True))

    # Modules and slices

    def unfold_modules(self) -> None:
        modules = self.data.get("modules")
        if not isinstance(modules, dict) or not modules or "models" in self.data or "slices" in self.data:
            return
        name, module = next(iter(modules.items()))
        if len(modules) > 1:
            names = ", ".join(map(str, modules))
            hint = "write one recipe for each part, with `tensors: {include: [...]}`"
            self.refuse(("modules",), f"several modules are merged differently here: {names}; expected one", hint)
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
            return
        first = slices[0]
        sources = first.get("sources")
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            return
        if len(slices) > 1:
            self.refuse(("slices", 1), f"{len(slices)} slices are stacked here; {_CUT}")
        else:
            self.read_ranges(sources)
        del self.data["slices"]
        without = [{key: value for key, value in source.items() if key != "layer_range"} for source in sources]
        self.data["models"] = without
        self.move(("slices", 0, "sources"), ("models",))
        self.read_slice(first)

    def read_ranges(self, sources: list[dict[str, Any]]) -> None:
        """Read the layer ranges of the sources, which must have all layers."""
        for index, source in enumerate(sources):
            place: KeyPath = ("slices", 0, "sources", index, "layer_range")
            found = source.get("layer_range")
            if not isinstance(found, list) or [type(end) for end in found] != [int, int]:
                self.refuse(place, f"expected the first and the last layer, [0, N]; got {format_value(found)}")
            elif found[0] != 0 or found[1] < 1:
                self.refuse(place, f"layers {found[0]} to {found[1]} are cut out of a model here; {_CUT}")
            elif self.layers not in {None, found[1]}:
                self.refuse(place, f"{found[1]} layers of this source meet {self.layers} of the first one; {_CUT}")
            else:
                self.layers = found[1]

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

    def add_level(self, place: KeyPath, inner: Any) -> None:
        """Put the parameters of a slice or module in front of those of the top level."""
        if not isinstance(inner, dict) or not inner:
            return
        outer = self.data.get("parameters") or {}
        if not isinstance(outer, dict):
            return
        self.data["parameters"] = {**outer}
        for name, value in inner.items():
            after = [(("parameters", name), outer[name])] if name in outer else []
            self.data["parameters"][name] = self.joined(name, [((*place, name), value), *after])

    def joined(self, name: str, levels: list[tuple[KeyPath, Any]]) -> Any:
        """Return the value of a parameter that several levels have, the inner level first."""
        places = [(self.written(place), value) for place, value in levels]
        if not _is_filter_list(places[0][1]) or len(places) == 1:
            self.move(places[0][0], ("parameters", name))
            return places[0][1]
        items: list[Any] = []
        for place, value in places:
            filters = _is_filter_list(value)
            for index, item in enumerate(value if filters else [value]):
                at: KeyPath = ("parameters", name, len(items))
                self.move((*place, index) if filters else place, at if filters else (*at, "value"))
                items.append(item if filters else {"value": item})
        return items

    # Keys and parameters

    def remove_keys(self) -> None:
        for key in NO_EFFECT & self.data.keys():
            self.remark((key,), f"{key} has no effect on the merged model: mergekit ignores it too")
            del self.data[key]

    def read_tokenizer(self) -> None:
        """Remove keys that ask for the tokenizer that the merged model has anyway."""
        base = self.data.get("base_model", self.first_model())
        source, tokenizer = self.data.get("tokenizer_source"), self.data.get("tokenizer")
        own = ("base", base) if isinstance(base, str) else ()
        for key, asks in (
            ("tokenizer_source", isinstance(source, str) and source in own),
            ("tokenizer", isinstance(tokenizer, dict) and list(tokenizer) == ["source"] and tokenizer["source"] in own),
        ):
            if asks:
                self.remark((key,), f"the merged model has the tokenizer of {base}, for which no key is needed")
                del self.data[key]

    def first_model(self) -> Any:
        models = self.data.get("models")
        return models[0].get("model") if isinstance(models, list) and models and isinstance(models[0], dict) else None

    def read_dtypes(self) -> None:
        for key in ("dtype", "out_dtype"):
            if isinstance(self.data.get(key), str):
                self.data[key] = self.data[key].removeprefix("torch.")

    def read_parameters(self) -> None:
        if isinstance(self.data.get("parameters"), dict):
            self.data["parameters"] = self.effective(("parameters",), self.data["parameters"], of_model=False)
        models = self.data.get("models")
        if isinstance(models, list):
            self.data["models"] = [self.entry(index, entry) for index, entry in enumerate(models)]

    def entry(self, index: int, entry: Any) -> Any:
        if not isinstance(entry, dict) or not isinstance(entry.get("parameters"), dict):
            return entry
        place: KeyPath = ("models", index, "parameters")
        return {**entry, "parameters": self.effective(place, entry["parameters"], of_model=True)}

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
            found[name] = _switch(value) if known is not None and name in SWITCHES else value
        return found


def _switch(value: Any) -> Any:
    """Return a number that mergekit reads as true or false as such."""
    return bool(value) if type(value) in {int, float} and value in {0, 1} else value


def _is_filter_list(value: Any) -> bool:
    return isinstance(value, list) and not is_gradient(value)
