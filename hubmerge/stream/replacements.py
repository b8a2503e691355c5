"""Steps that put a newer commit of a source in the place of an older one: one takes it out, the next merges the newer.

They are told by their entries alone: an entry that is not revoked follows those that revoke others of its model.
"""

from __future__ import annotations

from collections.abc import Sequence

from merge_recipes import StreamEntry


def replaced_by(entries: Sequence[StreamEntry], step: int) -> tuple[str, ...]:
    """Return the names of the entries whose place the entry of a step takes, in merge order; mostly none.

    Args:
        entries: the stream.
        step: the number of the step, from 1.
    """
    entry, names = entries[step - 1], []
    if entry.revoke is None:
        for earlier in reversed(entries[: step - 1]):
            if earlier.revoke is None or str(earlier.model) != str(entry.model):
                break
            names.append(earlier.revoke)
    return tuple(reversed(names))


def is_half(entries: Sequence[StreamEntry], step: int) -> bool:
    """Return True if a step takes an entry out whose newer commit a later step merges: nobody needs its model."""
    entry = entries[step - 1]
    if entry.revoke is None:
        return False
    later = (one for one in entries[step:] if one.revoke is None or str(one.model) != str(entry.model))
    following = next(later, None)
    return following is not None and str(following.model) == str(entry.model)
