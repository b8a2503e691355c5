"""LoRA adapters as the `peft` library saves them.

An adapter is a folder with adapter_config.json and adapter_model.safetensors (or .bin). For every changed weight it has
two small factors A and B; the change is scaling * B A. Some adapters also have whole tensors that were trained with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo

_WRAPPER = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<which>[AB])(?:\.default)?(?:\.weight)?")
_SAVED_WHOLE = re.compile(r"\.modules_to_save(?:\.default)?(?=\.)|\.base_layer(?=\.)")
_UNKNOWN = ("lora_", "trainable_tokens", "original_module")
_MERGE_FIRST = "merge it into its model with peft (merge_and_unload) and name the result"

# LoRA options with which the changed weight is not W + scaling * B A.
_UNSUPPORTED_OPTIONS = (
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
# Initializations of A and B that leave the model's own weights alone. The others move a part of the weights into the
# adapter, which then fits those moved weights only.
_PLAIN_INITIALIZATIONS = (True, False, None, "gaussian", "eva", "orthogonal")

# Patterns come from an untrusted file: without bounds, matching one could take forever.
_MAX_PATTERN_CHARACTERS = 200
_MAX_REPETITIONS = 3
_NESTED_REPETITION = re.compile(r"\)\s*[*+{]")


@dataclass(frozen=True)
class LowRank:
    """The change of one weight.

    Attributes:
        module: the changed module, as the adapter names it.
        down: the factor A in the adapter's files: (rank, inputs), for an embedding (rank, entries).
        up: the factor B in the adapter's files: (outputs, rank), for an embedding (width, rank).
        embedding: True for the table of an embedding.
        scaling: the factor of B A.
    """

    module: str
    down: TensorInfo
    up: TensorInfo
    embedding: bool
    scaling: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of B A: (outputs, inputs); (entries, width) for an embedding; that of a convolution's weight."""
        outputs, inputs = self.up.shape[0], self.down.shape[1]
        return (inputs, outputs) if self.embedding else (outputs, inputs, *self.down.shape[2:])


class Adapter:
    """An adapter in files.

    Attributes:
        files: the adapter's own tensors and config.
        changes: its low-rank changes.
        whole: the tensors that it has whole, by the name of the parameter they replace.
        fan_in_fan_out: True if the changed weights are stored as (inputs, outputs).
        ties_weights: True if all changes of tied weights are one and the same change, saved under each name.
        model_class: the class of the model that it was trained on; empty if its config does not have it.
        task_type: the kind of task in its config, such as SEQ_CLS; None if there is none.
        notes: what a user should know about it, one sentence each.

    Raises:
        CheckpointError: the adapter is of a kind that cannot be merged.
    """

    def __init__(self, files: Checkpoint, *, scaled: bool = True) -> None:
        """Sort the tensors of an adapter.

        Args:
            files: its tensors and its config.
            scaled: True if the config has the scales; False if every change is B A.
        """
        self.files = files
        self.notes: tuple[str, ...] = ()
        self.fan_in_fan_out = files.config.get("fan_in_fan_out") is True
        self.ties_weights = files.config.get("ensure_weight_tying") is True
        self.model_class = _model_class(files.config)
        self.task_type = files.config.get("task_type")
        _check_kind(files.config, files.origin)
        self.changes, self.whole = _sort_tensors(files, scaled=scaled)

    def for_model(self, model: Checkpoint) -> Adapter:
        """Return the adapter for a model: itself, because it has changes for one model only."""
        del model
        return self

    @property
    def label(self) -> str:
        """The adapter's name in messages."""
        return self.files.label

    def product(self, change: LowRank) -> torch.Tensor:
        """Return scaling * B A of one change, of `change.shape`, in float64."""
        down = self.files.read(change.down.name).to(torch.float64).flatten(1)
        up = self.files.read(change.up.name).to(torch.float64).flatten(1)
        product = (up @ down).mul_(change.scaling)
        return (product.T if change.embedding else product).reshape(change.shape)

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return a tensor that the adapter has whole, in its stored dtype."""
        return self.files.read(info.name)

    def close(self) -> None:
        """Close the file."""
        self.files.close()


def _model_class(config: Mapping[str, Any]) -> str:
    mapping = config.get("auto_mapping")
    name = mapping.get("base_model_class") if isinstance(mapping, Mapping) else None
    return name if isinstance(name, str) else ""


def _check_kind(config: Mapping[str, Any], origin: Origin) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise origin.error(f"an adapter of type {kind!r}, only LORA can be merged", hint=_MERGE_FIRST)
    unsupported = [key for key in _UNSUPPORTED_OPTIONS if config.get(key)]
    initialization = config.get("init_lora_weights", True)
    if initialization not in _PLAIN_INITIALIZATIONS:
        unsupported.append(f"init_lora_weights: {initialization}")
    if unsupported:
        raise origin.error(
            f"a LoRA with `{unsupported[0]}`; only changes of whole layers are merged, W + scaling * B A",
            hint=_MERGE_FIRST,
        )


def _sort_tensors(files: Checkpoint, *, scaled: bool) -> tuple[tuple[LowRank, ...], dict[str, TensorInfo]]:
    factors: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    whole: dict[str, TensorInfo] = {}
    for stored, info in files.tensors.items():
        name = stored.removeprefix(_WRAPPER)
        if found := _FACTOR.fullmatch(name):
            factors.setdefault((found["module"], found["embedding"] is not None), {})[found["which"]] = info
        elif any(part in name for part in _UNKNOWN):
            raise files.origin.error(
                f"tensor {stored!r} is neither a LoRA factor nor a saved module", hint=_MERGE_FIRST, tensor=stored
            )
        else:
            whole[_SAVED_WHOLE.sub("", name)] = info
    changes = tuple(
        _low_rank(module, found, files, embedding=embedding, scaled=scaled)
        for (module, embedding), found in factors.items()
    )
    if not changes and not whole:
        raise files.origin.error("the adapter contains no tensors", hint="fetch it or save it again")
    return changes, whole


def _low_rank(
    module: str, factors: Mapping[str, TensorInfo], files: Checkpoint, *, embedding: bool, scaled: bool
) -> LowRank:
    down, up = factors.get("A"), factors.get("B")
    if down is None or up is None or len(down.shape) < 2 or len(up.shape) < 2 or up.shape[1] != down.shape[0]:
        shapes = ", ".join(f"{which}: {info.shape}" for which, info in sorted(factors.items()))
        raise files.origin.error(
            f"module {module!r}: expected two matching factors A and B, found {shapes}",
            hint="the adapter is damaged or incomplete: fetch it or save it again",
        )
    if not scaled:
        return LowRank(module, down, up, embedding, 1.0)
    rank = down.shape[0]
    alpha = _pattern_value(files.config.get("alpha_pattern"), module, files.origin)
    alpha = files.config.get("lora_alpha") if alpha is None else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or rank == 0:
        raise files.origin.error(
            f"module {module!r}: expected a finite lora_alpha and a rank of at least 1, found lora_alpha {alpha!r} "
            f"and rank {rank}",
            hint=f"correct {ADAPTER_CONFIG}",
        )
    divisor = math.sqrt(rank) if files.config.get("use_rslora") is True else rank
    return LowRank(module, down, up, embedding, float(alpha) / divisor)


def _pattern_value(patterns: Any, module: str, origin: Origin) -> Any:
    """Return the value of the first pattern that matches the end of the module's name, as peft looks it up."""
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        repetitions = sum(pattern.count(sign) for sign in "*+{")
        risky = repetitions > _MAX_REPETITIONS or _NESTED_REPETITION.search(pattern) is not None
        if len(pattern) > _MAX_PATTERN_CHARACTERS or risky:
            raise origin.error(
                f"the pattern {pattern[:60]!r} in {ADAPTER_CONFIG} is too complex to match safely",
                hint="write the names of the modules instead",
            )
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise origin.error(
                f"{pattern!r} in {ADAPTER_CONFIG} is not a valid pattern: {error}", hint="correct the pattern"
            ) from error
    return None
