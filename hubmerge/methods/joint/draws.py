"""Random numbers of a merge: they depend on the seed, the tensor's name and the model's number, and on nothing else.

Every block of a tensor continues where the block before it ended, so the number of an element does not depend on
threads, processes or shards.
"""

from __future__ import annotations

import hashlib

from hubmerge.support.lazy import np, torch

_PER_COUNT = 8
"""Numbers of 32 bits that Philox gives for each value of its counter."""


def uniform(seed: int, name: str, model: int, start: int, count: int) -> torch.Tensor:
    """Return numbers from 0 to 1, without 1, for `count` elements of a tensor from number `start` on, float32.

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
    words = (
        bits.random_raw((start + count - begin + 1) // 2).astype("<u8", copy=False).view("<u4")[start - begin :][:count]
    )
    return torch.from_numpy((words >> 8).astype(np.float32) * np.float32(2.0**-24))
