"""Cards that people write in too: hubmerge owns the part between two comments and its own metadata keys."""

from __future__ import annotations

from typing import Any

import yaml

from hubmerge.cards.data import form_comment, front_matter

BEGIN = "<!-- hubmerge writes from here on: text above is kept -->"
"""First line of the part that hubmerge writes."""

END = "<!-- hubmerge writes up to here: text below is kept -->"
"""Last line of the part that hubmerge writes."""

SHARED_KEYS = ("tags", "datasets")
"""Metadata keys with a list to which people add values."""

OWN_KEYS = frozenset({"base_model", "base_model_relation", "library_name", "metrics", "model-index"})
"""Metadata keys that only hubmerge writes: without a new value, an earlier one is removed."""


def has_marks(card: str) -> bool:
    """Return True if a card has both comments around the part that hubmerge writes."""
    begin = card.find(BEGIN)
    return begin >= 0 and card.find(END, begin) > begin


def merged_card(generated: str, existing: str | None, *, sets_license: bool = False) -> str:
    """Return a card with a generated part, and with everything that people wrote in the existing card.

    Args:
        generated: the card that hubmerge writes from the report.
        existing: the card in the repo, None if there is none or nobody but hubmerge wrote it.
        sets_license: True if the recipe sets the license; otherwise a license in the existing card is kept.
    """
    head, body = _parts(generated)
    own = f"{BEGIN}\n\n{body.strip()}\n\n{END}\n"
    if existing is None:
        return f"---\n{head}\n---\n\n{own}"
    _, theirs = _parts(existing)
    if has_marks(theirs):
        before, _, rest = theirs.partition(BEGIN)
        after = rest.partition(END)[2].lstrip("\n")
    else:
        before, after = theirs, ""
    before = before.strip("\n")
    text = (f"{before}\n\n" if before else "") + own + (f"\n{after}" if after else "")
    metadata = _merged_metadata(front_matter(generated), front_matter(existing), sets_license=sets_license)
    if metadata != front_matter(generated):
        dumped = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10**6)
        head = f"{form_comment()}\n{dumped.rstrip()}"
    return f"---\n{head}\n---\n\n{text}"


def _merged_metadata(ours: dict[str, Any], theirs: dict[str, Any], *, sets_license: bool) -> dict[str, Any]:
    merged = dict(ours)
    for key, value in theirs.items():
        if key in SHARED_KEYS and key in ours:
            merged[key] = list(dict.fromkeys([*_as_list(ours[key]), *_as_list(value)]))
        elif key.startswith("license"):
            if not sets_license:
                merged[key] = value
        elif key not in ours and key not in OWN_KEYS:
            merged[key] = value
    return merged


def own_part(card: str, expected: str, *, keeps_license: bool) -> tuple[str, list[str]]:
    """Return a card without what people added, and one sentence for each addition.

    Args:
        card: the published card.
        expected: the card that hubmerge writes from the report.
        keeps_license: True if the license of the card may be that of people.
    """
    head, body = _parts(card)
    additions = []
    if has_marks(body):
        before, _, rest = body.partition(BEGIN)
        body, _, after = rest.partition(END)
        texts = (("above", before.strip()), ("below", after.strip()))
        additions = [f"text {place} the generated part" for place, text in texts if text]
    found, wanted = front_matter(card), front_matter(expected)
    own = dict(found)
    for key in found:
        if key.startswith("license") and keeps_license and found[key] != wanted.get(key):
            additions.append(f"{key}: {found[key]}")
            own.pop(key)
            if key in wanted:
                own[key] = wanted[key]
        elif key not in wanted and key not in OWN_KEYS:
            additions.append(f"the metadata key {key}")
            own.pop(key)
        elif key in SHARED_KEYS and set(_as_list(wanted[key])) < set(_as_list(found[key])):
            additions.append(f"more values of {key}")
            own[key] = wanted[key]
    if own == wanted:
        head = _parts(expected)[0]
    return f"---\n{head}\n---\n\n{body.strip()}\n", additions


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _parts(card: str) -> tuple[str, str]:
    """Return the front matter and the body of a card."""
    if not card.startswith("---\n"):
        return "", card
    head, closing, body = card.removeprefix("---\n").partition("\n---\n")
    return (head, body) if closing else ("", card)
