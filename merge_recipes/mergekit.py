"""Keys and values of mergekit's recipes that have no meaning here, each with a sentence that says why."""

from __future__ import annotations

_LAYERS = "hubmerge merges whole models, one checkpoint after another: list them under models"
_TOKENIZER = "the merged model keeps the base model's tokenizer and processor: leave the key out"

OTHER_KEYS: dict[str, str] = {
    "slices": f"mergekit's slices are not supported; {_LAYERS}",
    "modules": f"mergekit's modules are not supported; {_LAYERS}",
    "layer_range": f"mergekit's layer ranges are not supported; {_LAYERS}",
    "sources": f"mergekit's slices are not supported; {_LAYERS}",
    "input_models": "this key is called models here, as in mergekit's present recipes",
    "tokenizer_source": f"mergekit's tokenizer_source is not supported; {_TOKENIZER}",
    "tokenizer": f"mergekit's tokenizer is not supported; {_TOKENIZER}",
    "chat_template": "mergekit's chat_template is not supported; the merged model keeps the base model's: "
    "leave the key out",
    "experts": "mergekit's mixture-of-experts recipes are not supported",
    "gate_mode": "mergekit's mixture-of-experts recipes are not supported",
    "_target_": "a recipe names no code: the merge method is chosen by merge_method",
}
"""What is said about a key that mergekit, or another tool, has and this language has not."""

REPLACES_MODELS = frozenset({"slices", "modules", "input_models"})
"""Keys that stand where `models` is expected: it is not missed as well then."""

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
        "sce",
        "slerp",
        "task_arithmetic",
        "ties",
    }
)
"""mergekit's methods: they take all models at once."""

GRADIENT = (
    "a list of numbers is mergekit's gradient over the layers, which is not supported; expected one value, or a list "
    "of {value, filter}"
)
