"""Floating-point buffers of a model: statistics, and what is computed from the config. Neither is a weight."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

MEAN, VARIANCE = "running_mean", "running_var"
VARIANCES = frozenset({"var", "variance", "variances", "std", "stddev"})
"""Last words of the names of buffers that must not become negative."""

TEMPERATURE = "temperature"
"""A weight that divides: with another sign, every ranking is reversed."""

_CACHES = frozenset(
    {
        *("cos_cached", "sin_cached", "cos_cache", "sin_cache", "_cos_cached", "_sin_cached"),
        *("relative_coords_table", "attn_mask"),
    }
)
"""Buffers that earlier versions of libraries saved, and that classes of today do not have under this name any more."""

_COUNTS = frozenset({"cluster_size", "cluster_usage"})
_WORD = re.compile(r"[^_]+")


@dataclass(frozen=True)
class Buffers:
    """Floating-point buffers of a model, under the names that they have or would have in the base model's files.

    Attributes:
        statistics: buffers that are saved with the weights, such as running means and variances.
        computed: buffers that are computed when the model is built, and not read from files.
        fixed: buffers that have a meaning only as they are, such as the vectors of spectral normalization.
        variances: tensors that must not become negative.
        source: the class or the rule by which they were found, in words.
        names_count: True if caches of earlier versions are known by their names.
        as_weights: tensors that count as weights in this stream.
    """

    statistics: frozenset[str] = frozenset()
    computed: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    variances: frozenset[str] = frozenset()
    source: str = ""
    names_count: bool = False
    as_weights: frozenset[str] = frozenset()

    def is_kept(self, name: str) -> bool:
        """Return True if the merged model has the base model's values: the buffer is computed, or fixed."""
        return name not in self.as_weights and (name in self.fixed or self.is_computed(name))

    def is_computed(self, name: str) -> bool:
        """Return True if the buffer is computed from the config."""
        if name in self.as_weights:
            return False
        return name in self.computed or (self.names_count and name.rpartition(".")[2] in _CACHES)

    def reason(self, name: str) -> str | None:
        """Return why a tensor is no weight, in words that are equal for all buffers of a kind; None if it is one."""
        last = name.rpartition(".")[2]
        if self.is_computed(name):
            return f"{last} is a buffer that is computed from the config"
        if self.is_kept(name):
            return f"{last} is a buffer that belongs to other values of its module"
        return f"{last} is a buffer, and only some models have it" if name in self.statistics else None

    def counted_as_weights(self, names: Collection[str]) -> Buffers:
        """Return the buffers for a stream that merges those in the base model's files like weights, as 0.1.0 did.

        Args:
            names: the tensors in the files of the base model.
        """
        return replace(self, statistics=self.statistics.difference(names), as_weights=frozenset(names))


NO_BUFFERS = Buffers()
"""A model without any."""


def must_not_be_negative(name: str) -> bool:
    """Return True if a buffer holds variances, standard deviations or counts, by its own name.

    >>> [must_not_be_negative(name) for name in ("bn.running_var", "vq.ema_cluster_size", "bn.running_mean", "log_var")]
    [True, True, False, False]
    """
    last = name.rpartition(".")[2].lower()
    words = _WORD.findall(last)
    return is_count(last) or (bool(words) and words[-1] in VARIANCES and "log" not in words)


def is_count(last: str) -> bool:
    """Return True for the own name of a buffer that counts how often each entry of a codebook is used."""
    return any(last == count or last.endswith(f"_{count}") for count in _COUNTS)
