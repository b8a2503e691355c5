"""Cards that people write in too: hubmerge owns the part between two comments and its own metadata keys."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from hubmerge.cards.data import LISTED_DATASETS, card_form, form_comment, front_matter

BEGIN = "<!-- hubmerge writes from here on: text above is kept -->"
"""First line of the part that hubmerge writes."""

END = "<!-- hubmerge writes up to here: text below is kept -->"
"""Last line of the part that hubmerge writes."""

SHARED_KEYS = ("tags", "datasets", "language")
"""Metadata keys with a list to which people add values."""

OWN_KEYS = frozenset({"base_model", "base_model_relation", "library_name", "metrics", "model-index"})
"""Metadata keys that only hubmerge writes: without a new value, an earlier one is removed."""


def has_marks(card: str) -> bool:
    """Return True if a card has both comments around the part that hubmerge writes."""
    _, begin, rest = card.partition(BEGIN)
    return bool(begin) and _after_end(rest) is not None


def _after_end(text: str) -> str | None:
    """Return what follows the closing comment, which is a line of its own; None if there is none.

    Inside of a line it may be quoted, for example in a comment of the recipe.
    """
    found = re.search(rf"^{re.escape(END)}[ \t\r]*$", text, re.MULTILINE)
    return None if found is None else text[found.end() :]


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
        after = (_after_end(rest) or "").lstrip("\n")
    else:
        before, after = theirs, ""
    before = before.strip("\n")
    text = (f"{before}\n\n" if before else "") + own + (f"\n{after}" if after else "")
    ours, present = front_matter(generated), front_matter(existing)
    if card_form(existing) <= LISTED_DATASETS:
        present = _without_scored_datasets(present, ours)
    metadata = _merged_metadata(ours, present, sets_license=sets_license)
    if metadata != front_matter(generated):
        dumped = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=10**6)
        head = f"{form_comment()}\n{dumped.rstrip()}"
    return f"---\n{head}\n---\n\n{text}"


def added_metadata(generated: str, merged: str) -> dict[str, Any]:
    """Return the metadata that people added to a card, as plain JSON values.

    Args:
        generated: the card that hubmerge writes from the report.
        merged: the card with what people wrote.
    """
    ours, theirs = (plain_metadata(front_matter(card)) for card in (generated, merged))
    return {key: value for key, value in theirs.items() if ours.get(key) != value}


def plain_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as plain JSON values: YAML has dates, and keys that are no text."""
    found: dict[str, Any] = json.loads(json.dumps({str(key): value for key, value in metadata.items()}, default=str))
    return found


def restored_card(earlier: str, newest: str) -> str | None:
    """Return the card of an earlier step with what people wrote in the newest card.

    Returns:
        None if one of the cards lacks the comments around the generated part.
    """
    if not (has_marks(earlier) and has_marks(newest)):
        return None
    return merged_card(own_part(earlier)[0], newest)


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


def _without_scored_datasets(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return metadata without the datasets that an earlier version named because of the scores."""
    results = [result for model in ours.get("model-index", ()) for result in model.get("results", ())]
    scored = {result.get("dataset", {}).get("type") for result in results}
    kept = [name for name in _as_list(theirs.get("datasets", [])) if name not in scored]
    others = {key: value for key, value in theirs.items() if key != "datasets"}
    return {**others, "datasets": kept} if kept else others


def own_part(card: str) -> tuple[str, list[str]]:
    """Return a card without the text that people added, and a few words for each addition. Metadata stay."""
    head, body = _parts(card)
    if not has_marks(body):
        return card, []
    before, _, rest = body.partition(BEGIN)
    after = _after_end(rest) or ""
    own = rest[: rest.rindex(END, 0, len(rest) - len(after))]
    texts = (("above", before.strip()), ("below", after.strip()))
    added = [f"text {place} the generated part" for place, text in texts if text]
    return f"---\n{head}\n---\n\n{own.strip()}\n", added


def replaced_edits(published: str, present: str, *, sets_license: bool = False) -> list[str]:
    """Return a few words for each change of a published card that the next generated card replaces.

    Args:
        published: the card as hubmerge published it.
        present: the card in the repo.
        sets_license: as for `merged_card`.
    """
    edits = []
    if has_marks(published) and _generated_text(published) != _generated_text(present):
        edits.append("the text between the two comments")
    before, now = (plain_metadata(front_matter(card)) for card in (published, present))
    for key in sorted(before.keys() | (now.keys() & OWN_KEYS)):
        if key in SHARED_KEYS:
            replaced = not set(map(str, _as_list(before[key]))) <= set(map(str, _as_list(now.get(key, []))))
        elif key.startswith("license"):
            replaced = key not in now or (sets_license and before[key] != now[key])
        else:
            replaced = before.get(key) != now.get(key)
        if replaced:
            edits.append(f"metadata {key}")
    return edits


def _generated_text(card: str) -> str:
    """Return the part of a card that hubmerge writes, without the metadata."""
    return _parts(own_part(card)[0])[1].strip()


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _parts(card: str) -> tuple[str, str]:
    """Return the front matter and the body of a card."""
    if not card.startswith("---\n"):
        return "", card
    head, closing, body = card.removeprefix("---\n").partition("\n---\n")
    return (head, body) if closing else ("", card)
