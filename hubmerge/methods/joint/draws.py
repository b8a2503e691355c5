"""Random numbers of a merge: they depend on the seed, the tensor's name and the model's number, and on nothing else.

Every block of a tensor continues where the block before it ended, so the number of an element does not depend on
threads, processes or shards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubmerge.support.lazy import np, torch

if TYPE_CHECKING:
    import numpy.typing as npt

_PER_COUNT = 8
"""Numbers of 32 bits that Philox gives for each value of its counter."""


BITS = 24
"""A draw is one of the 2**BITS multiples of 2**-BITS from 0 to 1, without 1."""


def draws(seed: int, name: str, model: int, start: int, count: int) -> npt.NDArray[Any]:
    """Return whole numbers from 0 to 2**BITS, without that, for `count` elements of a tensor from number `start` on.

    Args:
        seed: the seed of the recipe.
        name: name of the tensor.
        model: number of the model, from 0.
        start: index of the first element.
        count: how many elements.
    """
    digest = hashlib.sha256(f"{seed}\0{model}\0{name}".encode()).digest()
    bits = np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64))
    begin = start // _PER_COUNT * _PER_COUNT
    bits.advance(begin // _PER_COUNT)
    raw = bits.random_raw((start + count - begin + 1) // 2).astype("<u8", copy=False)
    words: npt.NDArray[Any] = raw.view("<u4")[start - begin :][:count]
    words >>= 32 - BITS
    return words


def uniform(seed: int, name: str, model: int, start: int, count: int) -> torch.Tensor:
    """Return numbers from 0 to 1, without 1, as float32; the arguments are those of `draws`."""
    return torch.from_numpy(draws(seed, name, model, start, count).astype(np.float32) * np.float32(2.0**-BITS))


def limits(chances: torch.Tensor | float) -> npt.NDArray[Any]:
    """Return for each chance, as a float32, the number below which a draw has to be."""
    rounded = np.asarray(chances, dtype=np.float32)
    return np.clip(np.ceil(rounded * np.float32(2.0**BITS)), 0.0, 2.0**BITS).astype(np.uint32)


@dataclass
class BitMasks:
    """Masks of the blocks of a tensor, one bit for each element."""

    bits: dict[int, npt.NDArray[Any]] = field(default_factory=dict)

    def add(self, start: int, mask: torch.Tensor) -> None:
        """Keep the mask of the block whose first element has the index `start`."""
        self.bits[start] = np.packbits(mask.reshape(-1).cpu().numpy())

    def read(self, start: int, like: torch.Tensor) -> torch.Tensor:
        """Return the mask of a block, in the shape and on the device of its values."""
        mask = np.unpackbits(self.bits[start], count=like.numel()).view(np.bool_)
        return torch.from_numpy(mask).to(like.device).view(like.shape)
