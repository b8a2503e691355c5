"""License of an input of a merge, as its card states it."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from hubmerge.support.records import record
from hubmerge.support.redaction import shown
from merge_recipes.licenses import OTHER, Family, family_of, is_license_link

MAX_IDENTIFIERS = 10
MAX_IDENTIFIER_CHARACTERS = 60
MAX_NAME_CHARACTERS = 200
MAX_LINK_CHARACTERS = 500
MAX_LANGUAGES = 200

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,4})?|multilingual|code")
"""Codes of ISO 639 with a region or a script, and two words that the Hub knows."""


@record
@dataclass(frozen=True)
class License:
    """License of a model or an adapter.

    Attributes:
        identifiers: Identifiers of the Hub, in small letters; empty if the card states no license.
        name: Name of a license that the Hub does not list.
        link: LICENSE, LICENSE.md or the web address of the license.
        files: Files with license texts and notices beside the weights, such as LICENSE and NOTICE.
        languages: Languages of the model that the card names, as codes such as "en".
    """

    identifiers: tuple[str, ...] = ()
    name: str | None = None
    link: str | None = None
    files: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, Any], files: tuple[str, ...] = ()) -> License:
        """Return the license in the metadata of a card.

        Args:
            metadata: The metadata. Values of a wrong type count as missing.
            files: Files with license texts and notices.
        """
        stated = metadata.get("license")
        texts = [one for one in (stated if isinstance(stated, list) else [stated]) if isinstance(one, str)]
        identifiers = [_line(text, MAX_IDENTIFIER_CHARACTERS).lower() for text in texts[:MAX_IDENTIFIERS]]
        name, link = metadata.get("license_name"), metadata.get("license_link")
        linked = link.strip() if isinstance(link, str) else ""
        kept = is_license_link(linked) and len(linked) <= MAX_LINK_CHARACTERS and shown(linked) == linked
        return cls(
            tuple(dict.fromkeys(filter(None, identifiers))),
            (_line(name, MAX_NAME_CHARACTERS) or None) if isinstance(name, str) else None,
            linked if kept else None,
            files,
            _languages(metadata.get("language")),
        )

    @property
    def family(self) -> Family:
        """Family of the license."""
        return family_of(self.identifiers)

    @property
    def key(self) -> tuple[object, ...]:
        """Value that is equal for equal licenses."""
        return (tuple(sorted(self.identifiers)), self.name if OTHER in self.identifiers else None)

    @property
    def text(self) -> str:
        """License in words: "mit", "mit, apache-2.0", "other (my-license)", "unknown"."""
        stated = ", ".join(self.identifiers) or Family.UNKNOWN.value
        return f"{stated} ({self.name})" if self.name else stated

    def to_metadata(self) -> dict[str, Any]:
        """Return the keys of a card's metadata; nothing if no license is stated."""
        if not self.identifiers:
            return {}
        stated = self.identifiers[0] if len(self.identifiers) == 1 else list(self.identifiers)
        values = {"license": stated, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in values.items() if value is not None}


NO_LICENSE = License()
"""License of a model whose card states none."""


def omit_unused_licenses(model: MutableMapping[str, Any]) -> None:
    """Remove what is empty from the licenses of a plain report of a model or a step, as in reports without them."""
    for values in model["licenses"]:
        for key in [key for key, value in values.items() if not value]:
            del values[key]
    if not model["licenses"]:
        del model["licenses"]


def _languages(stated: Any) -> tuple[str, ...]:
    texts = [one for one in (stated if isinstance(stated, list) else [stated]) if isinstance(one, str)]
    return tuple(dict.fromkeys(one for one in texts if _LANGUAGE.fullmatch(one)))[:MAX_LANGUAGES]


def _line(text: str, length: int) -> str:
    """Return a text as one short line without control characters and tokens."""
    return shown(" ".join(text[: 4 * length].split()))[:length]
