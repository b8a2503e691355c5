"""Order of `order: shuffled`."""

from __future__ import annotations

import random


def shuffled_places(count: int, seed: int | None) -> tuple[int, ...]:
    """Return the places 0 to count - 1 in the order of `order: shuffled` with a seed."""
    places = list(range(count))
    # random() gives equal numbers in every Python version; shuffle() does not guarantee that.
    draw = random.Random(seed).random  # noqa: S311 - an order, not a secret
    for last in range(count - 1, 0, -1):
        chosen = int(draw() * (last + 1))
        places[last], places[chosen] = places[chosen], places[last]
    return tuple(places)
