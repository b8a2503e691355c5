"""Rules between the tokenizer keys of a recipe and its other keys, and what they mean for each form of methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from merge_recipes.errors import KeyPath, Problem, format_value
from merge_recipes.read_yaml import Document
from merge_recipes.references import ModelReference, checkpoint_key
from merge_recipes.rules import has_queries, mapping_at, raw_entries, reference_in
from merge_recipes.tokenizer_keys import BASE, MODEL_TOKEN, ZERO

KEYS = ("tokenizer_source", "tokenizer")


def builds_tokenizer(data: Any) -> bool:
    """Return True if plain data of a recipe names the tokenizer of the merged model."""
    return isinstance(data, dict) and any(data.get(key) is not None for key in KEYS)


def tokenizer_problems(document: Document) -> Iterator[Problem]:
    """Yield the problems of tokenizer keys that every method has."""
    data = mapping_at(document)
    if all(data.get(key) is not None for key in KEYS):
        message = "tokenizer_source and tokenizer name the tokenizer twice; expected one of them"
        yield document.problem(("tokenizer_source",), message, "remove `tokenizer_source`", at_key=True)
    if has_queries(document):
        return
    base = reference_in(data.get("base_model"))
    known = [entry.reference for entry in raw_entries(document)] + [base]
    keys = {checkpoint_key(one) for one in known if one is not None}
    for path, reference in _row_models(document):
        if checkpoint_key(reference) not in keys:
            message = f"{format_value(str(reference))} is not a model of this merge, so its rows are not read"
            yield document.problem(path, message, "name one of the models, or the base model")


def _row_models(document: Document) -> Iterator[tuple[KeyPath, ModelReference]]:
    """Yield the models whose rows single tokens take, each with its key path."""
    for token, options in mapping_at(document, "tokenizer", "tokens").items():
        source = options.get("source") if isinstance(options, dict) else None
        path: KeyPath = ("tokenizer", "tokens", token, "source")
        if isinstance(source, dict) and source.get("kind") not in {None, MODEL_TOKEN, ZERO}:
            continue
        if isinstance(source, dict):
            path, source = (*path, "model"), source.get("model")
        reference = reference_in(source)
        if reference is not None:
            yield path, reference


def needs_joint_form(document: Document, method: str) -> Iterator[Problem]:
    """Yield a problem if a merge of one checkpoint after another asks for another tokenizer than the base model's."""
    if asks_for_base(document):
        return
    for key in KEYS:
        if mapping_at(document).get(key) is not None:
            message = (
                f"{method} merges one checkpoint after another here, whose vocabulary cannot change; expected `base`"
            )
            hint = "choose a method that merges all models at once, or write `form: joint`"
            yield document.problem((key,), message, hint, at_key=True)


def unneeded_keys(document: Document) -> Iterator[Problem]:
    """Yield a remark on a key that asks for the tokenizer that a merge of one after another has anyway."""
    data = mapping_at(document)
    for key in KEYS:
        if data.get(key) is not None:
            message = f"the merged model has the tokenizer of {data.get('base_model')}, for which no key is needed"
            yield document.problem((key,), message, at_key=True)


def asks_for_base(document: Document) -> bool:
    """Return True if the tokenizer keys ask for the base model's tokenizer as it is."""
    data = mapping_at(document)
    own = (BASE, data.get("base_model"))
    tokenizer = data.get("tokenizer")
    if isinstance(tokenizer, dict) and (tokenizer.keys() != {"source"} or tokenizer["source"] not in own):
        return False
    return data.get("tokenizer_source") in (None, *own)
