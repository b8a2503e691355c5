"""Buffers that are known by their names and by the tensors beside them, for models whose class is not known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from hubmerge.checkpoints.matching.buffers import MEAN, VARIANCE, VARIANCES, is_count
from hubmerge.checkpoints.tensors import TensorInfo

_MEAN = re.compile(r"(?P<start>(?:[a-z]\w*_)?)mean")
_OF_WEIGHTS = re.compile(r"(?:^|_)(?:weight|bias|kernel)s?_")
_ROUTER_BIASES = frozenset({"e_score_correction_bias", "expert_bias"})
_OBSERVER = re.compile(r"(?:^|\.)(?:activation_post_process(?:_\d+)?|(?:\w+_)?fake_quant)\.")
_NEW_DIRECTION = re.compile(r"(?P<module>.*\bparametrizations\.\w+)\.\d+\._[uv]")
_OLD_DIRECTION = re.compile(r"(?P<name>.+)_[uv]")


def statistics_by_name(tensors: Mapping[str, TensorInfo], names: Collection[str]) -> Iterator[str]:
    """Yield the statistics among `names`, for models whose class is not known.

    These are a mean and a variance or standard deviation of one module and shape, a running variance beside the weight
    of its norm, a codebook that counts its uses, and the bias of a router that balances its experts.

    Args:
        tensors: all tensors of the model.
        names: the tensors to sort.
    """
    inside = Counter(_split(name)[0] for name, info in tensors.items() if info.dtype.is_floating_point)
    codebooks = {module for module, last in map(_split, tensors) if is_count(last) and inside[module] > 1}
    pairs = {name for found in tensors for name in _moments(tensors, found)}
    for name in names:
        module, last = _split(name)
        in_codebook = module in codebooks and tensors[name].dtype.is_floating_point
        if in_codebook or name in pairs or last in _ROUTER_BIASES or _is_alone(tensors, name):
            yield name


def fixed_by_name(names: Collection[str]) -> Iterator[str]:
    """Yield the buffers among `names` that have a meaning only as they are, or together with others.

    These are the singular vectors of spectral normalization, whose mean over models has no direction, and the ranges
    and scales of observers, which belong to integers.
    """
    known = set(names)
    for name in names:
        if not name.endswith(("_u", "_v")):
            if _OBSERVER.search(name):
                yield name
            continue
        new, old = _NEW_DIRECTION.fullmatch(name), _OLD_DIRECTION.fullmatch(name)
        if (new is not None and f"{new['module']}.original" in known) or (
            old is not None and f"{old['name']}_orig" in known
        ):
            yield name


def _split(name: str) -> tuple[str, str]:
    module, _, last = name.rpartition(".")
    return module, last


def _moments(tensors: Mapping[str, TensorInfo], mean: str) -> list[str]:
    """Return a mean with the variance or standard deviation beside it; nothing for other tensors."""
    module, last = _split(mean)
    found = _MEAN.fullmatch(last)
    if found is None or _OF_WEIGHTS.search(found["start"]) or not tensors[mean].shape:
        return []
    start = f"{module}." if module else ""
    beside = (f"{start}{found['start']}{word}" for word in sorted(VARIANCES))
    others = [name for name in beside if name in tensors and tensors[name].shape == tensors[mean].shape]
    return [mean, *others] if others else []


def _is_alone(tensors: Mapping[str, TensorInfo], name: str) -> bool:
    """Return True for a running mean or variance without the other one, beside the weight of its norm."""
    module, last = _split(name)
    weight = tensors.get(f"{module}.weight")
    return last in (MEAN, VARIANCE) and weight is not None and weight.shape == tensors[name].shape
