"""Check of a card's metadata, as a Hub does it before a commit and for `validate-yaml`."""

from __future__ import annotations

from collections.abc import Iterable

from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.operations import Operation, Put
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.web.describe import CARD_LIMIT_BYTES, card_data
from hubmerge.support.card_rules import metadata_errors
from hubmerge.support.names import CARD_FILE


def card_errors(text: str, kind: str) -> list[str]:
    """Return the errors in the metadata of a card."""
    try:
        return metadata_errors(card_data(text), kind)
    except ValueError as error:
        return [str(error)]


def check_committed_card(store: ObjectStore, kind: str, operations: Iterable[Operation]) -> None:
    """Refuse a commit with a card whose metadata are not valid.

    Raises:
        BadRequest: the metadata have errors.
    """
    for operation in operations:
        if not isinstance(operation, Put) or operation.path != CARD_FILE:
            continue
        entry = operation.entry
        if entry.sha256 is None and entry.size <= CARD_LIMIT_BYTES:
            text = store.blob_path(entry.oid).read_text(encoding="utf-8", errors="replace")
            errors = "".join(f"\n- Error: {error}" for error in card_errors(text, kind))
            if errors:
                raise BadRequest(f"Your push was rejected during YAML metadata verification:{errors}")
