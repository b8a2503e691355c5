"""Reading a LoRA adapter as the `peft` library saves it: which weights it changes, and by what.

An adapter is a folder with adapter_config.json and adapter_model.safetensors (or .bin). Every changed weight has two
small factors A and B; the change is scaling * B A. Some adapters also hold whole tensors that were trained along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint, TensorSource
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, ADAPTER_FILES, read_json_object
from hubmerge.checkpoints.formats.pickle_reader import PickleReader
from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

_WRAPPER = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<which>[AB])(?:\.default)?(?:\.weight)?")
_SAVED_ALONG = re.compile(r"\.modules_to_save(?:\.default)?(?=\.)|\.base_layer(?=\.)")
_UNKNOWN = ("lora_", "trainable_tokens", "original_module")

# What a LoRA can be told to do that is more than adding B A to a weight; each changes what the files mean.
_MORE = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "megatron_config",
)
# Ways of drawing the first A and B that leave the model's own weights alone. The others move a part of the weights
# into the adapter, which then fits those moved weights only.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")

# Patterns come from a file anybody may have written: without bounds, matching one could take forever.
_MAX_PATTERN_CHARACTERS = 200
_MAX_REPETITIONS = 3
_NESTED_REPETITION = re.compile(r"\)\s*[*+{]")


@dataclass(frozen=True)
class LowRank:
    """One changed weight: `module` as the adapter calls it, the names of its factors in the adapter's files.

    A is (rank, inputs), B is (outputs, rank); of an embedding table A is (rank, entries), B (width, rank).
    """

    module: str
    down: TensorInfo
    up: TensorInfo
    embedding: bool
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of B A: (outputs, inputs), or (entries, width) for an embedding, or that of a convolution."""
        outputs, inputs = self.up.shape[0], self.down.shape[1]
        return (inputs, outputs) if self.embedding else (outputs, inputs, *self.down.shape[2:])


class Adapter:
    """An adapter in files. `changes` are its low-rank changes; `whole` maps parameters to tensors saved along.

    `model_class` is the class of the model that it was made on, where its config tells.
    """

    def __init__(self, label: str, config: Mapping[str, Any], held: Checkpoint) -> None:
        self.label = label
        self.fan_in_fan_out = config.get("fan_in_fan_out") is True
        self.model_class = _model_class(config)
        self._held = held
        _check_kind(config, label)
        self.changes, self.whole = _sorted_out(held.tensors, config, label)

    def product(self, change: LowRank) -> torch.Tensor:
        """scaling * B A of one change, of `change.shape`, float64."""
        down = self._held.read(change.down.name).to(torch.float64).flatten(1)
        up = self._held.read(change.up.name).to(torch.float64).flatten(1)
        product = (up @ down).mul_(change.scaling)
        return (product.T if change.embedding else product).reshape(change.shape)

    def read(self, info: TensorInfo) -> torch.Tensor:
        """A tensor saved along, in its stored dtype."""
        return self._held.read(info.name)

    def close(self) -> None:
        """Let go of the file."""
        self._held.close()


def base_model_of(config: Mapping[str, Any]) -> str | None:
    """The model that an adapter was made for, as its config names it: a repo or a path."""
    name = config.get("base_model_name_or_path")
    return name if isinstance(name, str) and name else None


def read_adapter_config(folder: Path, label: str) -> dict[str, Any]:
    """The content of adapter_config.json. Raises CheckpointError if there is none."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise CheckpointError(f"{label}: not an adapter: it has no {ADAPTER_CONFIG}", hint="name a LoRA adapter")
    return read_json_object(path.read_bytes(), f"{label}/{ADAPTER_CONFIG}")


def open_adapter(folder: Path, label: str) -> Adapter:
    """Open the adapter in a folder. Raises CheckpointError if it is none, or of a kind that cannot be merged."""
    config = read_adapter_config(folder, label)
    file = next((name for name in ADAPTER_FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{label}: no {' or '.join(ADAPTER_FILES)}", hint="save it with save_pretrained()")
    source: TensorSource
    if file.endswith(".safetensors"):
        stored = SafetensorsReader(folder / file, f"{label}/{file}")
        source, tensors = stored, stored.header.tensors
    else:
        pickled = PickleReader(folder / file, f"{label}/{file}")
        source, tensors = pickled, pickled.tensors
    return Adapter(label, config, Checkpoint(label, tensors, config, {file: source}))


def _model_class(config: Mapping[str, Any]) -> str:
    mapping = config.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, Mapping) else None
    return name if isinstance(name, str) else ""


def _check_kind(config: Mapping[str, Any], label: str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{label}: an adapter of type {kind!r}, only LORA can be merged",
            hint="merge it into its model with peft (merge_and_unload) and name the result",
        )
    more = [key for key in _MORE if config.get(key)]
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        more.append(f"init_lora_weights: {start}")
    if more:
        raise CheckpointError(
            f"{label}: a LoRA with `{more[0]}`, whose weights are more than the model's plus B A",
            hint="merge it into its model with peft (merge_and_unload) and name the result",
        )


def _sorted_out(
    tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], label: str
) -> tuple[tuple[LowRank, ...], dict[str, TensorInfo]]:
    factors: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    whole: dict[str, TensorInfo] = {}
    for stored, info in tensors.items():
        name = stored.removeprefix(_WRAPPER)
        if found := _FACTOR.fullmatch(name):
            factors.setdefault((found["module"], found["embedding"] is not None), {})[found["which"]] = info
        elif any(part in name for part in _UNKNOWN):
            raise CheckpointError(
                f"{label}: tensor {stored!r} is of no kind that is known in a LoRA",
                hint="merge it into its model with peft (merge_and_unload) and name the result",
            )
        else:
            whole[_SAVED_ALONG.sub("", name)] = info
    changes = tuple(
        _low_rank(module, embedding, found, config, label) for (module, embedding), found in factors.items()
    )
    if not changes and not whole:
        raise CheckpointError(f"{label}: the adapter holds no tensor", hint="fetch or save it again")
    return changes, whole


def _low_rank(
    module: str, embedding: bool, factors: Mapping[str, TensorInfo], config: Mapping[str, Any], label: str
) -> LowRank:
    down, up = factors.get("A"), factors.get("B")
    if down is None or up is None or len(down.shape) < 2 or len(up.shape) < 2 or up.shape[1] != down.shape[0]:
        shapes = ", ".join(f"{which}: {info.shape}" for which, info in sorted(factors.items()))
        raise CheckpointError(
            f"{label}: module {module!r} has no two factors that fit together ({shapes})",
            hint="the adapter is damaged or incomplete: fetch or save it again",
        )
    rank = down.shape[0]
    alpha = _pattern_value(config.get("alpha_pattern"), module, label)
    alpha = config.get("lora_alpha") if alpha is None else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or rank == 0:
        raise CheckpointError(
            f"{label}: module {module!r} has lora_alpha {alpha!r} and rank {rank}",
            hint=f"correct {ADAPTER_CONFIG}",
        )
    divisor = math.sqrt(rank) if config.get("use_rslora") is True else rank
    return LowRank(module, down, up, embedding, float(alpha) / divisor)


def _pattern_value(patterns: Any, module: str, label: str) -> Any:
    """The value of the first pattern that fits the module or the last parts of its name, as peft looks it up."""
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        repetitions = sum(pattern.count(sign) for sign in "*+{")
        risky = repetitions > _MAX_REPETITIONS or _NESTED_REPETITION.search(pattern) is not None
        if len(pattern) > _MAX_PATTERN_CHARACTERS or risky:
            raise CheckpointError(
                f"{label}: the pattern {pattern[:60]!r} in {ADAPTER_CONFIG} is too involved to be tried",
                hint="name the modules themselves",
            )
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(
                f"{label}: {pattern!r} in {ADAPTER_CONFIG} is no pattern: {error}", hint="correct the pattern"
            ) from error
    return None
