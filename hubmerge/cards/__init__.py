"""The model card and its picture, from a run's report. Pure: no files, no network."""

from __future__ import annotations

from hubmerge.cards.card import card_text
from hubmerge.cards.picture import accuracy_picture

__all__ = ["accuracy_picture", "card_text"]
