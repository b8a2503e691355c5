"""Tokenizers read from their files, with transformers where the files need it. No code of a repo runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.model_class.class_lookup import config_folder, without_code
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.vocabulary.tokenizer import (
    SETTINGS_FILE,
    TOKENIZER_FILE,
    Tokenizer,
    json_object,
    vocabulary_of,
)
from hubmerge.errors import CheckpointError

_HINT = "save the tokenizer of the model with save_pretrained() of transformers, which writes tokenizer.json"


def load_tokenizer(files: Mapping[str, bytes], config: Mapping[str, Any], origin: Origin) -> Tokenizer | None:
    """Return the tokenizer in the files of a model, None if there is none.

    Args:
        files: the files of the tokenizer, by name.
        config: the content of the model's config.json.
        origin: the model's place.

    Raises:
        CheckpointError: the files are not a tokenizer that transformers can load without code of the repo.
    """
    if not any(name != SETTINGS_FILE and not name.endswith(".jinja") for name in files):
        return None
    stored = _stored(files.get(TOKENIZER_FILE), origin)
    loaded = _loaded(files, config)
    if isinstance(loaded, str):
        if stored is None:
            raise origin.error(f"its tokenizer cannot be read: {loaded}", hint=_HINT)
        return Tokenizer(origin.label, stored, files)
    same = stored is not None and vocabulary_of(stored) == vocabulary_of(loaded)
    return Tokenizer(origin.label, stored if same and stored is not None else loaded, files, stored=stored)


def _stored(content: bytes | None, origin: Origin) -> dict[str, Any] | None:
    if content is None:
        return None
    found = json_object(content)
    try:
        vocabulary_of(found)
    except (KeyError, TypeError, IndexError) as error:
        raise origin.in_file(TOKENIZER_FILE).error(
            "it is not a tokenizer: expected a model with a vocabulary", hint=_HINT
        ) from error
    return found


def _loaded(files: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return what transformers makes of the files, or why it makes nothing, in words."""
    try:
        with config_folder(without_code(config)) as folder:
            write_files(files, Path(folder))
            loaded = _auto_tokenizer(folder)
            backend = getattr(loaded, "backend_tokenizer", None)
            if backend is None:
                return f"transformers makes no tokenizer.json of {type(loaded).__name__}"
            content = json.loads(backend.to_str())
            vocabulary_of(content)
            return dict(content)
    except Exception as error:  # the files are free text: the errors of a tokenizer have no common type
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a tokenizer into a folder, for transformers; settings that name code are left out."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = json_object(content) if name == SETTINGS_FILE else {}
        if "auto_map" in settings:
            del settings["auto_map"]
            content = json.dumps(settings).encode()
        path.write_bytes(content)


def _auto_tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def check_written(files: Mapping[str, bytes], config: Mapping[str, Any], expected: Tokenizer) -> None:
    """Check that transformers reads the planned vocabulary from the files of the merged model.

    Args:
        files: the files of the tokenizer as they are written.
        config: the config.json of the merged model.
        expected: the planned tokenizer.

    Raises:
        CheckpointError: it reads another vocabulary, or nothing.
    """
    found = _loaded(files, config)
    if isinstance(found, str):
        raise CheckpointError(
            f"the tokenizer of the merged model cannot be read: {found}",
            hint="write `tokenizer_source: base` in the recipe",
            file=TOKENIZER_FILE,
        )
    tokens = vocabulary_of(found)
    for token, number in expected.tokens.items():
        # A class may add special tokens of its own after all others, as it does for the models that are merged.
        if tokens.get(token) != number:
            raise CheckpointError(
                f"the tokenizer of the merged model has {token!r} as number {tokens.get(token)}, expected {number}",
                hint="write `tokenizer_source: base` in the recipe",
                file=TOKENIZER_FILE,
            )
