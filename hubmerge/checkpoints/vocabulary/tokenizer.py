"""The tokenizer of a model, as the content of its `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

TOKENIZER_FILE, SETTINGS_FILE, TEMPLATE_FILE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
PROCESSOR_TEMPLATE_FILE = "chat_template.json"

_NAMES = frozenset(
    {
        TOKENIZER_FILE,
        SETTINGS_FILE,
        TEMPLATE_FILE,
        PROCESSOR_TEMPLATE_FILE,
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tekken.json",
        "normalizer.json",
    }
)
_ENDINGS = (".model", ".spm", ".tiktoken", ".bpe", ".vocab", ".codes")
_TEMPLATES = "additional_chat_templates/"


def is_tokenizer_file(name: str) -> bool:
    """Return True for a file of a tokenizer or a chat template, by its name in the folder of the model."""
    top = "/" not in name and (name in _NAMES or name.endswith(_ENDINGS) or ".model.v" in name)
    return top or (name.startswith(_TEMPLATES) and name.endswith(".jinja"))


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model.

    Attributes:
        label: the name of the model in messages.
        content: the content of `tokenizer.json`.
        files: the files of the tokenizer, by name; where `content` was changed, those that it was made from.
        changed: True if `content` is not that of the files.
        stored: the content of the file, without the special tokens that the class of the tokenizer adds to it.
    """

    label: str
    content: Mapping[str, Any]
    files: Mapping[str, bytes]
    changed: bool = False
    stored: Mapping[str, Any] | None = None

    @cached_property
    def tokens(self) -> dict[str, int]:
        """All tokens with their numbers."""
        return vocabulary_of(self.content)

    @cached_property
    def added(self) -> dict[str, Mapping[str, Any]]:
        """Tokens that are found in a text before it is split: special and added ones, with their settings."""
        return {token["content"]: token for token in self.content.get("added_tokens") or ()}

    @property
    def kind(self) -> str:
        """The kind of tokenizer in words, such as "BPE over bytes". Only tokenizers of one kind have a union."""
        model = self.content["model"]
        name = str(model["type"])
        if name == "BPE":
            parts = [*_types(self.content.get("pre_tokenizer")), *_types(self.content.get("decoder"))]
            if "ByteLevel" in parts:
                return "BPE over bytes"
            return "BPE with bytes for unknown characters" if model.get("byte_fallback") else name
        if name == "WordPiece":
            return f"WordPiece with the prefix {model.get('continuing_subword_prefix', '##')}"
        return name

    @property
    def settings(self) -> dict[str, Any]:
        """The content of `tokenizer_config.json`, empty if there is none."""
        return json_object(self.files.get(SETTINGS_FILE))

    @property
    def special_numbers(self) -> dict[str, int]:
        """The numbers of the first, last and padding token that the settings name, by their keys in a config."""
        found = {}
        for kind in ("bos", "eos", "pad"):
            token = self.settings.get(f"{kind}_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token in self.tokens:
                found[f"{kind}_token_id"] = self.tokens[token]
        return found

    @property
    def template(self) -> str | None:
        """The chat template, None if there is none."""
        if TEMPLATE_FILE in self.files:
            return self.files[TEMPLATE_FILE].decode("utf-8", errors="replace")
        found = self.settings.get("chat_template")
        if isinstance(found, list):
            named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
            found = named.get("default")
        return found if isinstance(found, str) else None


def json_object(content: bytes | None) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no file, or it has something else."""
    try:
        found = json.loads(content) if content is not None else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def vocabulary_of(content: Mapping[str, Any]) -> dict[str, int]:
    """Return all tokens in the content of a `tokenizer.json`, with their numbers."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        found = {str(item[0]): number for number, item in enumerate(vocabulary)}
    else:
        found = dict(vocabulary)
    return found | {token["content"]: token["id"] for token in content.get("added_tokens") or ()}


def _types(part: object) -> Iterator[str]:
    """Yield the types of a part of a tokenizer and of the parts in it."""
    if isinstance(part, Mapping):
        if isinstance(part.get("type"), str):
            yield part["type"]
        for value in part.values():
            yield from _types(value)
    elif isinstance(part, list):
        for value in part:
            yield from _types(value)
