"""Keys, methods and parameters of mergekit's recipes; the keys that hubmerge does not support, with a message."""

from __future__ import annotations

from dataclasses import dataclass

_LAYERS = "expected a list of slices, {sources: [{model: ..., layer_range: [first, last + 1]}]}"

OTHER_KEYS: dict[str, str] = {
    "modules": "mergekit's modules are read if there is one, {NAME: {models: [...]}}, or {NAME: {slices: [...]}}",
    "layer_range": f"mergekit's layer ranges belong under slices; {_LAYERS}",
    "sources": f"the sources of mergekit's slices belong under slices; {_LAYERS}",
    "input_models": "input_models is not supported; write models, as in current mergekit recipes",
    "experts": "mergekit's mixture-of-experts recipes are not supported",
    "gate_mode": "mergekit's mixture-of-experts recipes are not supported",
    "genome": "mergekit's evolution recipes are not supported",
    "_target_": "a recipe cannot name code: choose a merge method with merge_method",
}
"""The message for each key of mergekit or another tool that recipes do not have."""

REPLACES_MODELS = frozenset({"modules", "input_models"})
"""Keys that are written in place of `models`. The missing key `models` is then not reported."""

UNUSED = "int8_mask"
"""Parameter that saves memory in mergekit and changes no merged model."""

OTHER_METHODS = frozenset(
    {
        "arcee_fusion",
        "breadcrumbs",
        "breadcrumbs_ties",
        "dare_linear",
        "dare_ties",
        "della",
        "della_linear",
        "karcher",
        "linear",
        "model_stock",
        "multislerp",
        "nearswap",
        "nuslerp",
        "passthrough",
        "ram",
        "ramplus_tl",
        "sce",
        "slerp",
        "task_arithmetic",
        "ties",
    }
)
"""mergekit's methods. They merge all models at once."""

JOINT_METHODS = OTHER_METHODS | {"tsv_m", "iso_cts", "svc", "pcb", "lines"}
"""Methods of hubmerge that merge all models at once, where the recipe asks for it or there is no other form."""

WITHOUT_BASE = frozenset({"karcher", "linear", "multislerp", "nuslerp", "passthrough"})
"""Methods that need no base model. The first model then lends config, tokenizer and tensor names."""

RANDOM_METHODS = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that draw random numbers."""

NO_EFFECT = frozenset(
    {
        "allow_crimes",
        "async_write",
        "clone_tensors",
        "copy_tokenizer",
        "cuda",
        "device",
        "embed_slerp",
        "gpu_rich",
        "int8_mask",
        "lazy_unpickle",
        "lora_merge_cache",
        "lora_merge_dtype",
        "low_cpu_memory",
        "model_name",
        "model_type",
        "multi_gpu",
        "name",
        "num_threads",
        "out_shard_size",
        "quiet",
        "random_seed",
        "read_to_gpu",
        "safe_serialization",
        "transformers_cache",
        "trust_remote_code",
        "unsafe_truncate_embeddings",
        "verbosity",
        "write_model_card",
        "write_threads",
    }
)
"""Top-level keys of mergekit recipes that mergekit ignores: names, and options of its command line."""


@dataclass(frozen=True)
class MethodParameters:
    """The parameters of one of mergekit's methods that change its result.

    Attributes:
        whole: parameters with one value for the whole merge.
        model: parameters of which each model can have its own value.
    """

    whole: frozenset[str] = frozenset()
    model: frozenset[str] = frozenset()

    def no_effect(self, name: str, *, of_model: bool) -> str | None:
        """Return why a parameter has no effect, None if it has one or is unknown."""
        if name in self.model or (name in self.whole and not of_model):
            return None
        if name in self.whole:
            return "at a single model, only under the top-level parameters"
        if name == UNUSED:
            return "on the merged model"
        return "with this method" if name in _KNOWN else None


def _parameters(whole: str = "", model: str = "") -> MethodParameters:
    return MethodParameters(frozenset(whole.split()), frozenset(model.split()))


_SUM = "normalize lambda"
_SPARSE = "normalize lambda rescale"

PARAMETERS: dict[str, MethodParameters] = {
    "arcee_fusion": _parameters(),
    "breadcrumbs": _parameters(_SPARSE, "weight density gamma"),
    "breadcrumbs_ties": _parameters(_SPARSE, "weight density gamma"),
    "dare_linear": _parameters(_SPARSE, "weight density"),
    "dare_ties": _parameters(_SPARSE, "weight density"),
    "della": _parameters(_SPARSE, "weight density epsilon"),
    "della_linear": _parameters(_SPARSE, "weight density epsilon"),
    "karcher": _parameters("max_iter tol"),
    "linear": _parameters("normalize", "weight"),
    "model_stock": _parameters("filter_wise"),
    "multislerp": _parameters("normalize_weights eps", "weight"),
    "nearswap": _parameters("t"),
    "nuslerp": _parameters("nuslerp_flatten nuslerp_row_wise", "weight"),
    "passthrough": _parameters("", "scale"),
    "ram": _parameters("epsilon"),
    "ramplus_tl": _parameters("epsilon r alpha"),
    "sce": _parameters("select_topk"),
    "slerp": _parameters("t"),
    "task_arithmetic": _parameters(_SUM, "weight"),
    "ties": _parameters(_SPARSE, "weight density"),
}
"""The parameters of mergekit's methods."""

SWITCHES = frozenset(
    {"filter_wise", "normalize", "normalize_weights", "nuslerp_flatten", "nuslerp_row_wise", "rescale"}
)
"""Parameters that are true or false. mergekit also reads 1 and 0."""

INTEGERS = frozenset({"max_iter"})
"""Parameters that are whole numbers."""

_KNOWN = frozenset({UNUSED}).union(*(one.whole | one.model for one in PARAMETERS.values()))

MISPLACED = _KNOWN - NO_EFFECT
"""Parameters of mergekit's methods, which have no effect at the top level of a recipe."""

WITH_TWO_FORMS = frozenset({"task_arithmetic", "ties"})
"""Methods that are also folds of hubmerge, which have `scaling` in place of weights."""
