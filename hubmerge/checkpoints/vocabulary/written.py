"""Files of the merged model's tokenizer, from those of the tokenizer that it was made from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from hubmerge.checkpoints.vocabulary.tokenizer import (
    PROCESSOR_TEMPLATE_FILE,
    SETTINGS_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    Tokenizer,
    json_object,
)

_SPECIAL_FILE = "special_tokens_map.json"
_KEPT = frozenset({SETTINGS_FILE, TEMPLATE_FILE, PROCESSOR_TEMPLATE_FILE, _SPECIAL_FILE})
"""Files that stay as they are where the vocabulary changes. Others have the old vocabulary."""

_DECODER = "added_tokens_decoder"


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the files of a tokenizer: as they are, or if it was changed, tokenizer.json and its settings."""
    if not tokenizer.changed:
        return dict(tokenizer.files)
    kept = {name: content for name, content in tokenizer.files.items() if name in _KEPT or "/" in name}
    for name in (SETTINGS_FILE, _SPECIAL_FILE):
        settings = json_object(kept.get(name))
        known = {key: value for key, value in settings.items() if _names_tokens(key, value, tokenizer.tokens)}
        if known != settings:
            kept[name] = _json(known)
    settings = json_object(kept.get(SETTINGS_FILE))
    if _DECODER in settings:
        settings[_DECODER] = {
            str(one["id"]): {key: value for key, value in one.items() if key != "id"}
            for one in tokenizer.content.get("added_tokens") or ()
        }
        kept[SETTINGS_FILE] = _json(settings)
    return {**kept, TOKENIZER_FILE: _json(tokenizer.content)}


def _names_tokens(key: str, value: Any, tokens: Collection[str]) -> bool:
    """Return False for a special token that the tokenizer does not have; it would be added when it is loaded."""
    token = value.get("content") if isinstance(value, Mapping) else value
    return not (key.endswith("_token") and isinstance(token, str)) or token in tokens


def with_template(files: Mapping[str, bytes], template: str) -> dict[str, bytes]:
    """Return the files of a tokenizer with another chat template, in every file that has one."""
    found = {**files, TEMPLATE_FILE: template.encode()}
    for name in (SETTINGS_FILE, PROCESSOR_TEMPLATE_FILE):
        settings = json_object(files.get(name))
        old = settings.get("chat_template")
        if isinstance(old, list):
            others = [one for one in old if not (isinstance(one, dict) and one.get("name") == "default")]
            settings["chat_template"] = [{"name": "default", "template": template}, *others]
        elif old is not None:
            settings["chat_template"] = template
        if old is not None:
            found[name] = _json(settings)
    return found


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
