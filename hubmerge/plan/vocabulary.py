"""Vocabulary of a merge of all models at once: the tokenizers of the models, and the rows of their embeddings."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.formats.layout import CONFIG_FILE
from hubmerge.checkpoints.model_class.embeddings import Embeddings
from hubmerge.checkpoints.vocabulary.load import load_tokenizer
from hubmerge.checkpoints.vocabulary.resized import Resizing
from hubmerge.checkpoints.vocabulary.row_plan import RowPlan, TokenRule, plan_rows, rule_texts
from hubmerge.checkpoints.vocabulary.settings import Translate, translation, with_vocabulary
from hubmerge.checkpoints.vocabulary.tokenizer import Tokenizer, is_tokenizer_file, json_object
from hubmerge.checkpoints.vocabulary.union import Part, union, with_tokens, without_unused
from hubmerge.errors import CheckpointError
from hubmerge.plan.base_vocabulary import keeps_base_files
from hubmerge.plan.embedding_rows import embeddings_of, rows_of
from hubmerge.report.inputs import TokenizerReport
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.tokenizer_files import files_digest, read_files
from hubmerge.support.progress import Advance, Progress
from hubmerge.support.text import counted, listed
from merge_recipes import ModelReference
from merge_recipes.references import checkpoint_key
from merge_recipes.tokenizer_keys import UNION, ModelToken, TokenizerOptions, ZeroRow


@dataclass(frozen=True)
class PlannedVocabulary:
    """The vocabulary of a merged model.

    Attributes:
        resizing: the rows of the merged model, and the tensors of each model that have them.
        numbers: by the number of an entry, the number of its model; the base model has 0.
        tokenizer: the tokenizer of the merged model.
        translate: the translation of numbers of tokens from the base model to the merged model.
        own: the model whose tokenizer it is, if that is not the base model.
        report: what the report says about it.
        table: each token that not all models have, and where its row comes from.
        memory_bytes: the memory for tensors that are read whole, and for rows that models get from others.
        templates: the chat template of each model.
        notes: remarks on tokenizers.
    """

    resizing: Resizing
    numbers: Mapping[int, int]
    tokenizer: Tokenizer
    translate: Translate
    own: Source | None
    report: TokenizerReport
    table: tuple[tuple[str, str], ...]
    memory_bytes: int
    templates: tuple[str | None, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Models:
    """The models of a merge, the base model first, each once."""

    references: tuple[ModelReference, ...]
    sources: tuple[Source, ...]
    checkpoints: tuple[Checkpoint, ...]
    numbers: Mapping[int, int]

    def number_of(self, reference: ModelReference) -> int:
        keys = [checkpoint_key(one) for one in self.references]
        if checkpoint_key(reference) not in keys:
            raise CheckpointError(
                f"{reference}: the recipe takes tokens of this model, which is not one of the models of this step",
                hint="name one of the models, or the base model",
            )
        return keys.index(checkpoint_key(reference))


def plan_vocabulary(
    stream: Stream, base: Checkpoint, opened: Mapping[int, Checkpoint], progress: Progress
) -> PlannedVocabulary | None:
    """Return the vocabulary of the merged model; None if its tokenizer is a copy of the base model's files.

    Args:
        stream: the stream.
        base: the base model, opened from its headers.
        opened: the checkpoints by the number of their entries.
        progress: the receiver of the stage.

    Raises:
        CheckpointError: the tokenizers have no union, a model has no token that the recipe names, or the class of a
            model is not known.
        HubError: a file cannot be read.
    """
    options = stream.recipe.tokenizer_options
    if options is None or not stream.is_joint:
        return None
    models = _models(stream, base, opened)
    if keeps_base_files(stream.recipe, models.sources, models.checkpoints):
        return None
    embeddings = tuple(map(embeddings_of, models.checkpoints))
    parts, notes, extra = _read_tokenizers(stream, models, embeddings, progress)
    source, merged = _merged(options, models, parts, extra)
    plan = _planned_rows(stream, options, models, parts, merged)
    translate = translation(parts[0].tokenizer.tokens, merged.tokens, plan.rows)
    table = tuple(rule_texts(plan, [str(one) for one in models.references], options.tokens or ()))
    return PlannedVocabulary(
        resizing=Resizing(plan, embeddings, _config(base, embeddings[0], plan, translate, own_numbers(source, merged))),
        numbers=models.numbers,
        tokenizer=merged,
        translate=translate,
        own=source,
        report=_report(options, models, parts, extra, plan, len(table)),
        table=table,
        memory_bytes=_memory_bytes(models, embeddings, plan),
        templates=tuple(part.tokenizer.template for part in parts),
        notes=(*notes, *_without_donor(table, options)),
    )


def _planned_rows(
    stream: Stream, options: TokenizerOptions, models: _Models, parts: list[Part], merged: Tokenizer
) -> RowPlan:
    """Return the rows of the merged model, after a check that they suit the tasks of the recipe."""
    has_base, multiple = stream.recipe.names_base, options.pad_to_multiple_of
    plan = plan_rows(merged.tokens, parts, _rules(options, models), has_base=has_base, multiple=multiple)
    if stream.recipe.evaluate is not None and not plan.keeps(0):
        raise CheckpointError(
            "the tasks of the recipe are scored with the tokenizer of the base model, and the merged model has other "
            "tokens",
            hint="remove `evaluate` from the recipe, or remove `tokenizer` and `tokenizer_source`",
        )
    return plan


def _without_donor(table: Sequence[tuple[str, str]], options: TokenizerOptions) -> Iterator[str]:
    """Yield a remark if no model has a row for tokens that the recipe does not name."""
    tokens = [token for token, text in table if text == "zeros" and token not in (options.tokens or {})]
    if tokens:
        count = counted(len(tokens), "token has", "tokens have")
        yield f"{count} a row in no model: zeros are taken for {listed([repr(token) for token in tokens], most=3)}"


def _read_tokenizers(
    stream: Stream, models: _Models, embeddings: Sequence[Embeddings], progress: Progress
) -> tuple[list[Part], list[str], tuple[Source, Tokenizer] | None]:
    """Return the tokenizers of the models, remarks on them, and the other tokenizer that the recipe names."""
    with progress.stage("read tokenizers", len(models.sources)) as advance:
        parts, notes = _parts(models, embeddings, advance)
        return parts, notes, _other_tokenizer(stream)


def _parts(models: _Models, embeddings: Sequence[Embeddings], advance: Advance) -> tuple[list[Part], list[str]]:
    """Return the tokenizers of the models with their numbers of rows, and remarks on them."""
    parts: list[Part] = []
    notes: list[str] = []
    known: dict[str, Tokenizer | None] = {}
    for checkpoint, source, facts in zip(models.checkpoints, models.sources, embeddings, strict=True):
        files = read_files(source, is_tokenizer_file)
        digest = files_digest(files)
        if digest not in known:
            known[digest] = load_tokenizer(files, checkpoint.config, source.origin)
        found = known[digest]
        tokenizer = _as_base(source, parts, notes) if found is None else replace(found, label=source.label)
        parts.append(Part(tokenizer, rows_of(checkpoint, facts)))
        advance(1)
    return parts, notes


def _models(stream: Stream, base: Checkpoint, opened: Mapping[int, Checkpoint]) -> _Models:
    references, checkpoints = [stream.recipe.base_model], [base]
    sources = [replace(stream.base, adapter=None)]
    numbers: dict[int, int] = {}
    keys = [(checkpoint_key(stream.recipe.base_model), stream.base.commit)]
    for number in stream.entries_of(stream.length):
        reference = stream.entries[number - 1].model
        key = (checkpoint_key(reference), stream.source(number).commit)
        if key not in keys:
            keys.append(key)
            references.append(reference)
            sources.append(stream.source(number))
            checkpoints.append(opened[number])
        numbers[number] = keys.index(key)
    return _Models(tuple(references), tuple(sources), tuple(checkpoints), numbers)


def _as_base(source: Source, parts: list[Part], notes: list[str]) -> Tokenizer:
    if not parts:
        raise source.origin.error(
            "it has no files of a tokenizer, which the vocabulary of the merged model begins with",
            hint="name a base model with a tokenizer, or remove `tokenizer` and `tokenizer_source`",
        )
    notes.append(f"{source.label} has no files of a tokenizer: its rows count as those of the base model's tokens")
    return replace(parts[0].tokenizer, label=source.label)


def _other_tokenizer(stream: Stream) -> tuple[Source, Tokenizer] | None:
    """Return the tokenizer that the recipe names, if it is not that of a model of the merge."""
    if stream.lock.tokenizer is None:
        return None
    source = stream.placed(Source.of(stream.lock.tokenizer))
    config = json_object(read_files(source, CONFIG_FILE.__eq__).get(CONFIG_FILE))
    found = load_tokenizer(read_files(source, is_tokenizer_file), config, source.origin)
    if found is None:
        raise source.origin.error(
            "it has no files of a tokenizer, expected those that the merged model gets",
            hint="name a model with a tokenizer, or write `tokenizer_source: base`",
        )
    return source, found


def _merged(
    options: TokenizerOptions, models: _Models, parts: list[Part], extra: tuple[Source, Tokenizer] | None
) -> tuple[Source | None, Tokenizer]:
    """Return the tokenizer of the merged model, and the model that it is from, if that is not the base model."""
    source: Source | None = None
    if extra is not None:
        source, found = extra
    elif isinstance(options.source, ModelReference) and (number := models.number_of(options.source)) > 0:
        source, found = models.sources[number], parts[number].tokenizer
    else:
        found = without_unused(parts[0])
        if options.source == UNION:
            found = union(found, parts[1:])
    return source, with_tokens(found, options.tokens or {}, parts)


def _rules(options: TokenizerOptions, models: _Models) -> dict[str, TokenRule]:
    rules = {}
    for token, one in (options.tokens or {}).items():
        row = one.source
        if isinstance(row, ZeroRow):
            rules[token] = TokenRule("zero", force=one.force)
        elif isinstance(row, ModelToken):
            named = row.token if row.token is not None else row.token_id or 0
            rules[token] = TokenRule("row", models.number_of(row.model), named, one.force)
        elif row is not None:
            rules[token] = TokenRule("row", models.number_of(row), token, one.force)
        else:
            rules[token] = TokenRule(force=one.force)
    return rules


def _config(
    base: Checkpoint, facts: Embeddings, plan: RowPlan, translate: Translate, own: dict[str, Any] | None
) -> dict[str, Any]:
    return with_vocabulary(base.config, facts.nested, plan.rows, translate, own)


def own_numbers(source: Source | None, tokenizer: Tokenizer, file: str = CONFIG_FILE) -> dict[str, Any] | None:
    """Return a config of the model whose tokenizer the merged model has, None for that of the base model.

    Special tokens that the config does not number are those of the tokenizer.

    Args:
        source: the model, None for the base model.
        tokenizer: the tokenizer.
        file: the file of the config.
    """
    if source is None:
        return None
    return tokenizer.special_numbers | json_object(read_files(source, file.__eq__).get(file))


def _memory_bytes(models: _Models, embeddings: Sequence[Embeddings], plan: RowPlan) -> int:
    """Return the memory for the largest embeddings of models whose rows are in another order, and for donated rows."""
    total = row = 0
    for model, (checkpoint, facts) in enumerate(zip(models.checkpoints, embeddings, strict=True)):
        infos = [checkpoint.tensors[name] for name in facts.axes]
        row = max(row, *(math.prod(info.shape) // max(1, plan.own_rows[model]) for info in infos))
        total += 0 if plan.in_order(model) else max(info.nbytes for info in infos)
    return total + 4 * row * len(plan.donors)


def _report(
    options: TokenizerOptions,
    models: _Models,
    parts: list[Part],
    extra: tuple[Source, Tokenizer] | None,
    plan: RowPlan,
    others: int,
) -> TokenizerReport:
    tokens = sorted(plan.tokens.items(), key=lambda item: item[1])
    digest = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()
    sources = dict(_digests(models, parts, extra))
    return TokenizerReport(str(options.source), len(tokens), plan.rows, f"sha256:{digest}", sources, others)


def _digests(models: _Models, parts: list[Part], extra: tuple[Source, Tokenizer] | None) -> Iterator[tuple[str, str]]:
    for reference, part in zip(models.references, parts, strict=True):
        yield str(reference), files_digest(part.tokenizer.files)
    if extra is not None:
        yield str(extra[0].reference), files_digest(extra[1].files)
