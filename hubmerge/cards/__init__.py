"""Model card of a published step and its picture, made from the report without files or network."""

from __future__ import annotations

from hubmerge.cards.card import CardDetails, card_text
from hubmerge.cards.data import CARD_FORM, card_data, card_form, data_differences, license_of
from hubmerge.cards.licenses import needs_notice, notice_files, notice_text, stated_licenses
from hubmerge.cards.merge_cards import added_metadata, has_marks, merged_card, own_part, restored_card
from hubmerge.cards.metadata import planned_card
from hubmerge.cards.picture import accuracy_picture

__all__ = [
    "CARD_FORM",
    "CardDetails",
    "accuracy_picture",
    "added_metadata",
    "card_data",
    "card_form",
    "card_text",
    "data_differences",
    "has_marks",
    "license_of",
    "merged_card",
    "needs_notice",
    "notice_files",
    "notice_text",
    "own_part",
    "planned_card",
    "restored_card",
    "stated_licenses",
]
