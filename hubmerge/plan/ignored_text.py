"""Lines on the tensors of checkpoints that are not merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hubmerge.checkpoints import AlignedCheckpoint
from hubmerge.support.text import counted


def ignored_lines(checkpoints: Iterable[AlignedCheckpoint]) -> Iterator[str]:
    """Yield a line for each kind of tensors that is neither merged nor written.

    A kind is a reason together with the last part of the names: `inv_freq` of all layers and checkpoints is one.
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for checkpoint in checkpoints:
        for tensor in checkpoint.ignored:
            kind = tensor.reason, tensor.name.rpartition(".")[2]
            kinds.setdefault(kind, []).append((checkpoint.label, tensor.name))
    return iter(sorted(_line(reason, found) for (reason, _), found in kinds.items()))


def _line(reason: str, found: list[tuple[str, str]]) -> str:
    label, name = found[0]
    if len(found) == 1:
        return f"{label}: {name} ({reason})"
    labels, names = {label for label, _ in found}, {name for _, name in found}
    where = label if len(labels) == 1 else counted(len(labels), "checkpoint")
    what = name if len(names) == 1 else f"{counted(len(names), 'tensor')} such as {name}"
    return f"{where}: {what} ({reason})"
