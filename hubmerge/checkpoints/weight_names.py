"""Names of weight files, by the library that writes and reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

SAFETENSORS = "safetensors"
PICKLE = "pickle"
SUFFIX = {SAFETENSORS: ".safetensors", PICKLE: ".bin"}

_INDEX = re.compile(r"\.index(?:\.[\w-]+)?\.json")
_VARIANT = r"(?P<variant>(?![\w-]*-\d+-of-\d+)[\w-]+)"
_PRECISIONS = ("fp32", "fp16", "bf16")
"""Variants that are one model in several dtypes; the first of them that a folder has is read."""


@dataclass(frozen=True)
class WeightNames:
    """Names of the weight files of one library.

    Attributes:
        library: the library that loads them; None if there are several.
        stem: the start of the names of safetensors files.
        pickled: the start of the names of `.bin` files.
        config_file: the file with the settings of the model.
        sharded: True if the library reads an index of several files.
        index_first: True if the library reads an index before a single file.
        variant: the variant that the names have, such as "fp16" in `model.fp16.safetensors`; None for no variant.
    """

    library: str | None
    stem: str
    pickled: str
    config_file: str = "config.json"
    sharded: bool = True
    index_first: bool = False
    variant: str | None = None

    def single(self, kind: str = SAFETENSORS) -> str:
        """Return the name of the one weight file.

        >>> DIFFUSERS.single(), DIFFUSERS.of_variant("fp16").single(PICKLE)
        ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.fp16.bin')
        """
        return f"{self._start(kind)}{SUFFIX[kind]}"

    def index(self, kind: str = SAFETENSORS) -> str:
        """Return the name of the index of several weight files.

        >>> TRANSFORMERS.index(), TRANSFORMERS.of_variant("fp16").index()
        ('model.safetensors.index.json', 'model.safetensors.index.fp16.json')
        """
        stem = self.stem if kind == SAFETENSORS else self.pickled
        return f"{stem}{SUFFIX[kind]}.index{self._variant_part}.json"

    def shard(self, number: int, count: int) -> str:
        """Return the name of a safetensors file among several; the first one has the number 1.

        >>> CONSOLIDATED.shard(1, 3)
        'consolidated-00001-of-00003.safetensors'
        """
        return f"{self._start(SAFETENSORS)}-{number:05d}-of-{count:05d}.safetensors"

    def is_written(self, name: str) -> bool:
        """Return True if a file of this name could be a weight file or an index that a merge writes."""
        shard = rf"{re.escape(self._start(SAFETENSORS))}(-\d{{5}}-of-\d{{5}})?\.safetensors"
        return name == self.index() or re.fullmatch(shard, name) is not None

    def of_variant(self, variant: str | None) -> WeightNames:
        """Return the names with another variant."""
        return replace(self, variant=variant)

    def variants(self, names: Collection[str]) -> list[str]:
        """Return the variants that files of these names have, those of usual dtypes first."""
        found = {
            match["variant"]
            for name in names
            for pattern in self._variant_patterns()
            if (match := re.fullmatch(pattern, name)) is not None
        }
        usual = [one for one in _PRECISIONS if one in found]
        return [*usual, *sorted(found.difference(usual))]

    def _variant_patterns(self) -> Iterator[str]:
        for kind, stem in ((SAFETENSORS, self.stem), (PICKLE, self.pickled)):
            suffix = re.escape(SUFFIX[kind])
            yield rf"{stem}\.{_VARIANT}{suffix}"
            yield rf"{stem}{suffix}\.index\.{_VARIANT}\.json"

    def _start(self, kind: str) -> str:
        return f"{self.stem if kind == SAFETENSORS else self.pickled}{self._variant_part}"

    @property
    def _variant_part(self) -> str:
        return "" if self.variant is None else f".{self.variant}"


TRANSFORMERS = WeightNames("transformers", "model", "pytorch_model")
DIFFUSERS = WeightNames("diffusers", "diffusion_pytorch_model", "diffusion_pytorch_model", index_first=True)
OPEN_CLIP = WeightNames(
    "open_clip", "open_clip_model", "open_clip_pytorch_model", "open_clip_config.json", sharded=False
)
CONSOLIDATED = WeightNames(None, "consolidated", "consolidated", "params.json")
"""Names in the original repos of Mistral and Llama."""

ALL_NAMES = (TRANSFORMERS, DIFFUSERS, OPEN_CLIP, CONSOLIDATED)
"""All names, in the order in which they are read if a folder has several of them."""

WITH_VARIANTS = (TRANSFORMERS, DIFFUSERS)
"""Names that may have a variant."""


def one_model(variants: Collection[str]) -> bool:
    """Return True if variants are one model in several dtypes, or only one variant."""
    return len(variants) == 1 or set(variants) <= set(_PRECISIONS)


def is_index(name: str) -> bool:
    """Return True for the index of a model with several weight files.

    >>> is_index("model.safetensors.index.json"), is_index("model.safetensors.index.fp16.json"), is_index("config.json")
    (True, True, False)
    """
    return _INDEX.search(name) is not None


def names_for(names: WeightNames, config: Mapping[str, Any]) -> WeightNames:
    """Return the names with the library that a config is for: timm has the file names of transformers, but no shards.

    >>> names_for(TRANSFORMERS, {"architecture": "resnet18", "pretrained_cfg": {}}).library
    'timm'
    """
    if names.stem == TRANSFORMERS.stem and is_timm(config):
        return replace(names, library="timm", sharded=False)
    return names


def is_timm(config: Mapping[str, Any]) -> bool:
    """Return True for the config.json of a model of timm that transformers has no wrapper for."""
    if "model_type" in config or "architectures" in config or not isinstance(config.get("architecture"), str):
        return False
    return any(key in config for key in ("pretrained_cfg", "num_classes", "num_features", "model_args"))
