"""Random recipes for tiny models, in the forms of mergekit: what two readers of one language should agree on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = ("base", "a", "b", "c")
"""Models of one vocabulary; those that begin with `t-` have tokenizers of their own."""

LAYERS = 4
FILTERS = ("mlp", "self_attn", "down_proj", "layernorm", "embed_tokens", "layers.2.", "*", "lm_head")
TWO_MODELS = frozenset({"slerp", "nearswap", "arcee_fusion"})
WITHOUT_BASE = frozenset({"linear", "karcher", "passthrough", "nuslerp", "multislerp"})
RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that draw numbers where the density is neither 0 nor 1, which these recipes leave out."""

NUMBERS: Mapping[str, Sequence[float]] = {
    "weight": (0.0, 0.3, 0.5, 1.0, 2.0, -0.4),
    "density": (0.0, 0.3, 0.5, 0.8, 1.0),
    "gamma": (0.0, 0.01, 0.3),
    "epsilon": (0.0, 0.05, 0.15),
    "lambda": (0.0, 0.5, 1.0, -1.0),
    "t": (0.0, 0.2, 0.5, 1.0),
    "select_topk": (0.0, 0.2, 0.6, 1.0),
    "scale": (0.0, 0.5, 1.0, -1.0),
    "r": (0.0, 0.1, 0.5),
    "alpha": (0.1, 0.2, 1.0),
}
SWITCHES = ("normalize", "rescale", "int8_mask", "filter_wise", "nuslerp_flatten", "nuslerp_row_wise")
SPARSE: Sequence[str] = ("weight", "density", "normalize", "rescale", "lambda", "int8_mask")
PARAMETERS: Mapping[str, Sequence[str]] = {
    "linear": ("weight", "normalize"),
    "slerp": ("t",),
    "nuslerp": ("weight", "nuslerp_flatten", "nuslerp_row_wise"),
    "multislerp": ("weight", "normalize_weights"),
    "karcher": (),
    "task_arithmetic": ("weight", "normalize", "lambda", "int8_mask"),
    "ties": SPARSE,
    "dare_linear": SPARSE,
    "dare_ties": SPARSE,
    "della": (*SPARSE, "epsilon"),
    "della_linear": (*SPARSE, "epsilon"),
    "breadcrumbs": (*SPARSE, "gamma"),
    "breadcrumbs_ties": (*SPARSE, "gamma"),
    "sce": ("select_topk", "int8_mask"),
    "model_stock": ("filter_wise",),
    "nearswap": ("t",),
    "arcee_fusion": (),
    "ram": ("epsilon",),
    "ramplus_tl": ("r", "alpha", "epsilon"),
    "passthrough": ("scale",),
}
OWN = frozenset({"weight", "density", "gamma", "epsilon", "scale"})
"""Parameters that each model may have."""

NEEDED = frozenset({"weight", "t"})


class Writer:
    """Random recipes of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._method = ""

    def recipe(self) -> dict[str, Any]:
        """Return one recipe, whose models are names of folders."""
        pick = self._random
        self._method = method = pick.choice(sorted(PARAMETERS))
        found: dict[str, Any] = {"merge_method": method}
        words = pick.random() < 0.15 and method not in TWO_MODELS | {"passthrough"}
        names = self._models(method)
        if words:
            names = [f"t-{name}" for name in dict.fromkeys(names) if name != "c"] or ["t-b"]
            found |= self._tokenizer()
        if method not in WITHOUT_BASE or (method != "passthrough" and pick.random() < 0.5):
            found["base_model"] = "t-base" if words else "base"
        if method == "linear" and found.get("base_model") not in names:
            found.pop("base_model", None)  # mergekit merges it then with the weight of the whole recipe
        if "base_model" not in found:
            self._first_in_union(found)
        globally = {name for name in PARAMETERS[method] if name not in OWN or pick.random() < 0.4}
        shape = pick.choices(["models", "slices", "modules"], [6, 0 if words else 3, 1])[0]
        entries = [self._entry(name, method, globally) for name in names]
        if shape == "models":
            found["models"] = entries
        elif shape == "modules":
            found["modules"] = {"default": {"models": entries}}
        else:
            found["slices"] = self._slices(entries, method)
        parameters = {name: self._setting(name) for name in sorted(globally) if self._given(name)}
        if parameters:
            found["parameters"] = parameters
        return found | self._dtypes()

    @staticmethod
    def _first_in_union(found: dict[str, Any]) -> None:
        """Replace the tokenizer of the base model where there is none: mergekit takes that of any model."""
        if found.get("tokenizer_source") == "base":
            found["tokenizer_source"] = "union"
        elif found.get("tokenizer", {}).get("source") == "base":
            found["tokenizer"]["source"] = "union"

    def _tokenizer(self) -> dict[str, Any]:
        """Return one of the forms of a tokenizer, or none, which different vocabularies do not have."""
        pick = self._random
        source = pick.choice(["union", "base", "t-a"])
        form = pick.choices(["short", "long", "none"], [4, 4, 1])[0]
        if form == "none":
            return {}
        if form == "short":
            return {"tokenizer_source": source}
        found: dict[str, Any] = {"source": source}
        if source == "union":
            row = {"kind": "model_token", "model": "t-b", "token": "<both>"}
            found["tokens"] = {
                "<a>": {"source": pick.choice(["t-a", {"kind": "zero"}, row]), "force": pick.random() < 0.5}
            }
        if pick.random() < 0.5:
            found["pad_to_multiple_of"] = pick.choice([8, 16])
        return {"tokenizer": found}

    def _models(self, method: str) -> list[str]:
        pick = self._random
        if method == "passthrough":
            return [pick.choice(NAMES)]
        if method in TWO_MODELS:
            return pick.choice([["a"], ["base", "a"], ["a", "base"], ["b"]])
        if method == "nuslerp":
            return ["a", "b"]
        names = pick.sample(NAMES, pick.choice([1, 2, 2, 3, 3, 4]))
        return [*names, names[0]] if pick.random() < 0.05 else names

    def _entry(self, name: str, method: str, globally: set[str]) -> dict[str, Any]:
        entry: dict[str, Any] = {"model": name}
        own = [one for one in PARAMETERS[method] if one in OWN and (one not in globally or self._random.random() < 0.3)]
        parameters = {one: self._setting(one) for one in own if self._given(one)}
        return entry | ({"parameters": parameters} if parameters else {})

    def _slices(self, entries: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
        pick = self._random
        cuts = pick.choice([[(0, LAYERS)], [(0, 2), (2, LAYERS)], [(0, 3), (1, LAYERS)], [(1, 3)]])
        found: list[dict[str, Any]] = []
        for first, last in cuts:
            sources = [{**entry, "layer_range": [first, last]} for entry in entries]
            part: dict[str, Any] = {"sources": sources}
            name = next((one for one in PARAMETERS[method] if one in NUMBERS), None)
            if name is not None and pick.random() < 0.3:
                part["parameters"] = {name: self._setting(name)}
            found.append(part)
        return found

    def _given(self, name: str) -> bool:
        return name in NEEDED or self._random.random() < 0.7

    def _setting(self, name: str) -> Any:
        """Return a value, a gradient, or filters."""
        pick = self._random
        if name not in NUMBERS:
            return pick.choice([True, False, True, False, 1, 0, "yes", "false"])
        form = pick.choices(["number", "gradient", "filters"], [6, 2, 2])[0]
        if form != "filters":
            return self._number(name, gradient=form == "gradient")
        chosen = pick.sample(FILTERS, pick.choice([1, 2]))
        found = [{"filter": one, "value": self._number(name, gradient=pick.random() < 0.3)} for one in chosen]
        last = [] if pick.random() < 0.1 else [{"value": self._number(name)}]
        return [*found, *last]

    def _number(self, name: str, *, gradient: bool = False) -> Any:
        pick = self._random
        numbers = (0.0, 1.0) if name == "density" and self._method in RANDOM else NUMBERS[name]
        if gradient and not (name == "density" and self._method in RANDOM):
            return [pick.choice(numbers) for _ in range(pick.choice([1, 2, 3]))]
        number = pick.choice(numbers)
        return pick.choices([number, str(number), int(number)], [20, 1, 2 if number == int(number) else 0])[0]

    def _dtypes(self) -> dict[str, str]:
        pick = self._random
        kind = pick.choices(["float32", "none", "bfloat16", "out"], [6, 2, 1, 1])[0]
        if kind == "out":
            return {"dtype": "float32", "out_dtype": pick.choice(["bfloat16", "float16"])}
        return {} if kind == "none" else {"dtype": kind}
