"""The model card and its picture, from a run's report. Pure: no files, no network."""

from __future__ import annotations

from hubmerge.cards.card import card_text
from hubmerge.cards.data import CARD_FORM, card_data, card_form, data_differences, license_of
from hubmerge.cards.picture import accuracy_picture

__all__ = [
    "CARD_FORM",
    "accuracy_picture",
    "card_data",
    "card_form",
    "card_text",
    "data_differences",
    "license_of",
]
