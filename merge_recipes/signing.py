"""Value of `publish: {sign: ...}`: `keyless`, or the file of a private key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import WithJsonSchema, model_serializer, model_validator

from merge_recipes.errors import InvalidReferenceError
from merge_recipes.record import Record, Text
from merge_recipes.references import absolute_path

KEYLESS = "keyless"
"""The value of `publish: {sign: ...}` for signatures without a stored key."""

_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"const": KEYLESS},
        {
            "type": "object",
            "properties": {
                "key": {
                    "type": "string",
                    "minLength": 1,
                    "description": "The file of an elliptic-curve private key; a relative path starts in the recipe's "
                    "folder.",
                }
            },
            "required": ["key"],
            "additionalProperties": False,
        },
        {"type": "null"},
    ]
}


class Signing(Record):
    """The signature of every published step. The word `keyless` stands for a mapping with that key."""

    key: Text
    """The file of an elliptic-curve private key; a relative path starts in the recipe's folder."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, data: Any) -> Any:
        if data == KEYLESS:
            return {"key": KEYLESS}
        if isinstance(data, str):
            raise InvalidReferenceError(f"expected {KEYLESS}, or the file of a key", f"write {{key: {data[:60]}}}")
        if isinstance(data, dict) and data.get("key") == KEYLESS:
            raise InvalidReferenceError(f"{KEYLESS} is not the file of a key", f"write `sign: {KEYLESS}`")
        return data

    @model_serializer
    def _to_word(self) -> Any:
        return KEYLESS if self.is_keyless else {"key": self.key}

    @property
    def is_keyless(self) -> bool:
        """True for signatures with the identity of the CI job that runs the recipe."""
        return self.key == KEYLESS

    def key_file(self, folder: Path) -> Path | None:
        """Return the file of the key, None without one; a relative path starts in `folder`."""
        return None if self.is_keyless else Path(absolute_path(self.key, folder))


SigningOption = Annotated[Signing | None, WithJsonSchema(_SCHEMA)]
