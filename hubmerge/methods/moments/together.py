"""Groups of matrices whose products are formed together, for devices that one product would not keep busy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from hubmerge.support.lazy import torch

ELEMENTS_TOGETHER = 16 << 20
"""Most elements of a float64 copy of a group of several matrices: 128 MiB."""


def equal_groups(
    items: Iterable[int], key: Callable[[int], Hashable], elements: Callable[[int], int]
) -> Iterator[list[int]]:
    """Yield groups of items with equal keys, in order.

    Args:
        items: indices of matrices.
        key: returns what the matrices of a group have in common.
        elements: returns the elements of the largest copy of a matrix; a group has at most `ELEMENTS_TOGETHER`, unless
            it is a single matrix.
    """
    groups: dict[Hashable, list[int]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    for group in groups.values():
        count = max(1, ELEMENTS_TOGETHER // max(1, elements(group[0])))
        for begin in range(0, len(group), count):
            yield group[begin : begin + count]


def solve_together(
    systems: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
    solve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> list[torch.Tensor | None]:
    """Return the solutions of systems of one shape, found in one call; None for those that are None.

    Args:
        systems: left and right side of each.
        solve: returns the solutions for stacks of left and right sides.
    """
    given = [system for system in systems if system is not None]
    if not given:
        return [None] * len(systems)
    found = iter(solve(torch.stack([left for left, _ in given]), torch.stack([right for _, right in given])))
    return [None if system is None else next(found) for system in systems]
