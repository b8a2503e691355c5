"""Keys and methods of mergekit's recipes that hubmerge does not support, each key with a message."""

from __future__ import annotations

_LAYERS = "hubmerge merges whole models, one checkpoint after another: list them under models"
_TOKENIZER = "the merged model keeps the base model's tokenizer and processor: remove the key"

OTHER_KEYS: dict[str, str] = {
    "slices": f"mergekit's slices are not supported; {_LAYERS}",
    "modules": f"mergekit's modules are not supported; {_LAYERS}",
    "layer_range": f"mergekit's layer ranges are not supported; {_LAYERS}",
    "sources": f"mergekit's slices are not supported; {_LAYERS}",
    "input_models": "input_models is not supported; write models, as in current mergekit recipes",
    "tokenizer_source": f"mergekit's tokenizer_source is not supported; {_TOKENIZER}",
    "tokenizer": f"mergekit's tokenizer is not supported; {_TOKENIZER}",
    "chat_template": "mergekit's chat_template is not supported; the merged model keeps the base model's: "
    "remove the key",
    "experts": "mergekit's mixture-of-experts recipes are not supported",
    "gate_mode": "mergekit's mixture-of-experts recipes are not supported",
    "_target_": "a recipe cannot name code: choose a merge method with merge_method",
}
"""The message for each key of mergekit or another tool that recipes do not have."""

REPLACES_MODELS = frozenset({"slices", "modules", "input_models"})
"""Keys that are written in place of `models`. The missing key `models` is then not reported."""

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
