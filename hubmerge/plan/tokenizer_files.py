"""Files of the merged model that change with its vocabulary or its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hubmerge.checkpoints.vocabulary.load import check_written
from hubmerge.checkpoints.vocabulary.settings import with_numbers
from hubmerge.checkpoints.vocabulary.templates import BUILT_IN, most_common
from hubmerge.checkpoints.vocabulary.tokenizer import Tokenizer, is_tokenizer_file, json_object
from hubmerge.checkpoints.vocabulary.written import tokenizer_files, with_template
from hubmerge.plan.vocabulary import PlannedVocabulary, own_numbers
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.tokenizer_files import read_files
from merge_recipes.references import checkpoint_key
from merge_recipes.tokenizer_keys import AUTO

GENERATION_FILE = "generation_config.json"

Files = Mapping[str, bytes | None]
"""Files by name; None for a file of the base model that the merged model does not have."""


def changed_files(stream: Stream, vocabulary: PlannedVocabulary | None) -> tuple[Files, tuple[str, ...]]:
    """Return the files of a merged model that are not those of the base model, and notes on them.

    Args:
        stream: the stream.
        vocabulary: the vocabulary of the merged model, None for that of the base model.

    Raises:
        CheckpointError: transformers does not read the planned vocabulary from the files.
        HubError: a file cannot be read.
    """
    recipe = stream.recipe
    if vocabulary is None and recipe.chat_template is None:
        return {}, ()
    base = read_files(stream.base, is_tokenizer_file)
    files = dict(base) if vocabulary is None else tokenizer_files(vocabulary.tokenizer)
    template, notes = _template(stream, vocabulary, base)
    if template is not None:
        files = with_template(files, template)
    changed: dict[str, bytes | None] = {name: one for name, one in files.items() if base.get(name) != one}
    changed |= dict.fromkeys(base.keys() - files.keys())
    if vocabulary is not None:
        if vocabulary.tokenizer.changed:
            check_written(files, vocabulary.resizing.config, vocabulary.tokenizer)
        changed |= _generation(stream.base, vocabulary)
    return changed, tuple(notes)


def _template(
    stream: Stream, vocabulary: PlannedVocabulary | None, base: Mapping[str, bytes]
) -> tuple[str | None, list[str]]:
    """Return the chat template that the recipe asks for, None to keep that of the tokenizer; and notes on it."""
    asked = stream.recipe.chat_template
    if asked is None:
        return None, []
    if asked in BUILT_IN:
        return BUILT_IN[asked], []
    if asked != AUTO:
        return asked, []
    templates = vocabulary.templates if vocabulary is not None else _templates(stream, base)
    found = most_common(templates)
    return found, [] if found is not None else ["chat_template: no model has a chat template, so none is written"]


def _templates(stream: Stream, base: Mapping[str, bytes]) -> list[str | None]:
    """Return the chat template of each model, the base model's first."""
    found = {checkpoint_key(stream.recipe.base_model): Tokenizer("", {}, base).template}
    for number, entry in enumerate(stream.entries, start=1):
        key = checkpoint_key(entry.model)
        if key not in found:
            found[key] = Tokenizer("", {}, read_files(stream.source(number), is_tokenizer_file)).template
    return list(found.values())


def _generation(base: Source, vocabulary: PlannedVocabulary) -> dict[str, bytes]:
    """Return the settings of generation with the numbers of special tokens in the merged model, if they change."""
    files = read_files(base, GENERATION_FILE.__eq__)
    settings = json_object(files.get(GENERATION_FILE))
    own = own_numbers(vocabulary.own, vocabulary.tokenizer, GENERATION_FILE)
    changed = with_numbers(settings, vocabulary.translate, own)
    if changed == settings or not files:
        return {}
    return {GENERATION_FILE: (json.dumps(changed, indent=2) + "\n").encode()}
