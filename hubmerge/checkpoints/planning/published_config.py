"""The config.json of a merged model: that of the base model, without what its weights contradict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.model_class.class_lookup import import_classes, named_class
from hubmerge.checkpoints.planning.merge_plan import PlannedTensor
from hubmerge.checkpoints.planning.quantized import SETTINGS, is_quantized, quantization_keys
from hubmerge.support.text import listed

_DTYPE_KEYS = ("dtype", "torch_dtype")
_NESTED_DTYPES = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "torch.")
    for name in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "auto")
)
"""Values of a `dtype` in a nested config that are dtypes of weights: other libraries use the key for other things."""

_CODE_KEY = "auto_map"
_NESTED_MODELS = ("text_config", "vision_config", "audio_config")


@dataclass(frozen=True)
class PublishedConfig:
    """The config.json of a merged model.

    Attributes:
        content: the config as it is written.
        quantized: True if the merged model keeps quantized tensors of the base model.
        notes: changes of the base model's config, and files that it names and that are not copied; one sentence each.
    """

    content: Mapping[str, Any]
    quantized: bool
    notes: tuple[str, ...]


def published_config(
    original: Checkpoint, written: Sequence[PlannedTensor], out_dtype: torch.dtype | None
) -> PublishedConfig:
    """Return the config.json of a merged model.

    It is that of the original, with three changes where they apply; of these, configs of other libraries than
    transformers have only the first. Settings of a quantized format are left out if all
    weights are plain numbers. A dtype that no weight has becomes that of the weights, also in nested configs. Code in
    the original's repo is named together with the repo, because it is not copied.

    Args:
        original: the model whose config fits the merged model.
        written: the tensors to be written.
        out_dtype: the dtype of floating-point tensors in the files; None for each tensor's own dtype.
    """
    place = str(original.origin.in_file(original.names.config_file))
    content, notes = dict(original.config), []
    quantized = any(tensor.copied and is_quantized(original, tensor.name) for tensor in written)
    settings = [] if quantized else sorted(set(_quantization_paths(content)))
    if settings:
        content = _without_settings(content)
        notes.append(f"{place} has {listed(settings)}, but all weights are plain numbers: left out of the merged model")
    if original.names.library != "transformers":  # other libraries write no dtype, and name no code
        return PublishedConfig(content, quantized, tuple(notes))
    dtypes = _dtypes(written)
    stale = _stale_dtypes(content, dtypes)
    if out_dtype is not None:
        content = _with_dtype(content, _name(out_dtype), everywhere=True)
    elif stale:
        found = dtypes.most_common(1)[0][0]
        content = _with_dtype(content, found, replaced=stale)
        notes.append(f"{place} sets the dtype {listed(stale)}, but the weights are {found}: written as {found}")
    if _code_files(content):
        content, note = _with_code(content, original)
        notes.append(note)
    return PublishedConfig(content, quantized, tuple(notes))


def _quantization_paths(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the places of settings of quantized formats, such as `text_config.quantization_config`."""
    yield from (key for key in config if key in SETTINGS or key in quantization_keys(config))
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in SETTINGS:
            yield from (f"{key}.{path}" for path in _quantization_paths(value))


def _without_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {*SETTINGS, *quantization_keys(config)}
    return {
        key: _without_settings(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in left_out
    }


def _dtypes(written: Iterable[PlannedTensor]) -> Counter[str]:
    """Return the number of elements of each dtype that a model can run in."""
    counts: Counter[str] = Counter()
    for tensor in written:
        if tensor.out_dtype.is_floating_point and tensor.out_dtype.itemsize > 1:
            counts[_name(tensor.out_dtype)] += tensor.elements
    return counts


def _stale_dtypes(config: Mapping[str, Any], dtypes: Collection[str]) -> list[str]:
    """Return the dtypes that a config or a config nested in it sets, and that no weight has."""
    if not dtypes:
        return []
    return sorted({*_stated(config), *_nested_dtypes(config)} - set(dtypes))


def _stated(config: Mapping[str, Any]) -> list[str]:
    """Return the dtypes that a config sets, without those of the configs in it; other values can have any type."""
    return [config[key] for key in _DTYPE_KEYS if isinstance(config.get(key), str)]


def _nested_dtypes(config: Mapping[str, Any]) -> Iterator[str]:
    for value in _nested(config):
        yield from (dtype for dtype in _stated(value) if dtype in _NESTED_DTYPES)
        yield from _nested_dtypes(value)


def _nested(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (value for key, value in config.items() if isinstance(value, Mapping) and key not in SETTINGS)


def _with_dtype(
    config: Mapping[str, Any], dtype: str, *, replaced: Sequence[str] = (), everywhere: bool = False
) -> dict[str, Any]:
    """Return a config with another dtype: in place of the `replaced` ones, or also where it has none."""
    changed = {
        key: _with_dtype(value, dtype, replaced=replaced, everywhere=everywhere and _is_model(key, value))
        if isinstance(value, Mapping) and key not in SETTINGS
        else value
        for key, value in config.items()
    }
    if everywhere:
        changed.pop("torch_dtype", None)
        return {**changed, "dtype": dtype}
    return changed | {key: dtype for key in _DTYPE_KEYS if changed.get(key) in replaced}


def _is_model(key: str, config: Mapping[str, Any]) -> bool:
    return not _NESTED_DTYPES.isdisjoint(_stated(config)) or key in _NESTED_MODELS or "model_type" in config


def _code_files(config: Mapping[str, Any]) -> list[str]:
    """Return the files of code beside the config that its `auto_map` names."""
    mapping = config.get(_CODE_KEY)
    values = mapping.values() if isinstance(mapping, Mapping) else ()
    references = [one for value in values for one in (value if isinstance(value, list) else [value])]
    own = (one for one in references if isinstance(one, str) and "--" not in one)
    return sorted({f"{one.rpartition('.')[0]}.py" for one in own})


def _with_code(config: dict[str, Any], original: Checkpoint) -> tuple[dict[str, Any], str]:
    """Return a config whose `auto_map` leads to the code of the original, and a note on it."""
    files, repo = listed(_code_files(config)), original.origin.repo
    place = original.origin.in_file(original.names.config_file)
    if repo is not None:
        mapping = {key: _in_repo(value, repo) for key, value in config[_CODE_KEY].items()}
        return {**config, _CODE_KEY: mapping}, (
            f"{place} names code that is not copied ({files}): the merged model's config.json names it in {repo}"
        )
    import_classes()
    if named_class(config) is not None:
        without = {key: value for key, value in config.items() if key != _CODE_KEY}
        return without, (
            f"{place} names code that is not copied ({files}): left out, because transformers has the class"
        )
    return config, f"{place} names code that is not copied: copy {files} of {original.label} to load the merged model"


def _in_repo(value: Any, repo: str) -> Any:
    if isinstance(value, list):
        return [_in_repo(one, repo) for one in value]
    return f"{repo}--{value}" if isinstance(value, str) and "--" not in value else value


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
