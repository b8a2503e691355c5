"""Values of `tokenizer_source`, `tokenizer` and `chat_template`: the vocabulary of the merged model and its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from merge_recipes.chat_template import syntax_problem
from merge_recipes.errors import did_you_mean, format_value
from merge_recipes.record import Record, Text
from merge_recipes.references import ModelReference
from merge_recipes.schema_types import reference_of

UNION, BASE = "union", "base"
"""Sources of a tokenizer that are not models."""

MODEL_TOKEN, ZERO = "model_token", "zero"
"""The kinds of rows that are not the row of the token itself in a model."""

BUILT_IN_TEMPLATES = ("alpaca", "chatml", "exaone", "llama3", "mistral")
"""Chat templates that a recipe can name."""

AUTO = "auto"
"""The chat template that most of the models have."""

_LEAST_TEMPLATE = 20
_SOURCE_FORM = "expected a model, {kind: model_token, model: ..., token: ...} or {kind: zero}"
_TOKENIZER_FORM = "union, base, or a model: owner/name on the Hub, or a local folder that starts with ./, ../, / or ~"


class ModelToken(Record):
    """The row of a token of one model, by its text or its number there."""

    model: ModelReference
    token: str | None = None
    token_id: int | None = None


class ZeroRow(Record):
    """A row of zeros."""


TokenRow = ModelReference | ModelToken | ZeroRow


def _row_of(value: object) -> TokenRow:
    """Return the value of `source` of a token."""
    if isinstance(value, ModelReference | ModelToken | ZeroRow):
        return value
    if isinstance(value, str):
        return ModelReference.parse(value)
    if not isinstance(value, dict):
        raise ValueError(f"{_SOURCE_FORM}; got {format_value(value)}")
    kind, others = value.get("kind"), {key: one for key, one in value.items() if key != "kind"}
    if kind == ZERO:
        _check_keys(others, ())
        return ZeroRow()
    if kind != MODEL_TOKEN:
        raise ValueError(f"{_SOURCE_FORM}; got the kind {format_value(kind)}")
    _check_keys(others, ("model", "token", "token_id"))
    token, token_id = others.get("token"), others.get("token_id")
    if (token is None) == (token_id is None):
        raise ValueError("expected `token` or `token_id`, one of them")
    if token is not None and not isinstance(token, str):
        raise ValueError(f"`token` is a text in quotes; got {format_value(token)}")
    if token_id is not None and (type(token_id) is not int or token_id < 0):
        raise ValueError(f"`token_id` is a whole number from 0 on; got {format_value(token_id)}")
    if "model" not in others:
        raise ValueError("`model` is required: the model whose row is taken")
    return ModelToken(model=reference_of(others["model"]), token=token, token_id=token_id)


def _check_keys(given: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            guess = did_you_mean(str(key), known) if known else "; expected no other key than kind"
            raise ValueError(f"unknown key {format_value(key)}{guess}")


def _plain_row(row: TokenRow) -> Any:
    if isinstance(row, ModelReference):
        return str(row)
    if isinstance(row, ZeroRow):
        return {"kind": ZERO}
    own = {"token": row.token} if row.token is not None else {"token_id": row.token_id}
    return {"kind": MODEL_TOKEN, "model": str(row.model), **own}


_KIND = "The kind of row: model_token for the row of a token of a model, zero for zeros."
_ROW_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "properties": {
                "kind": {"const": MODEL_TOKEN, "description": _KIND},
                "model": {"type": "string", "minLength": 1, "description": "The model whose row is taken."},
                "token": {"type": "string", "description": "The token whose row is taken."},
                "token_id": {"type": "integer", "minimum": 0, "description": "The number of the token there."},
            },
            "required": ["kind", "model"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"kind": {"const": ZERO, "description": _KIND}},
            "required": ["kind"],
            "additionalProperties": False,
        },
        {"type": "null"},
    ]
}

RowSource = Annotated[
    TokenRow,
    PlainValidator(_row_of),
    PlainSerializer(_plain_row),
    WithJsonSchema(_ROW_SCHEMA),
]


class TokenOptions(Record):
    """The row of one token in the embeddings and the head."""

    source: Annotated[RowSource | None, WithJsonSchema(_ROW_SCHEMA)] = None
    """The row for models that lack the token: that of a model, of another token of a model, or zeros. By default that
    of the base model, else the mean of the models that have the token."""
    force: bool = False
    """True: models that have the token take this row too."""


def _options_of(value: object) -> object:
    return {} if value is None else value


def _source_of(value: object) -> ModelReference | str:
    if isinstance(value, str) and value in {UNION, BASE}:
        return value
    if not isinstance(value, str | ModelReference):
        raise ValueError(f"expected {_TOKENIZER_FORM}; got {format_value(value)}")
    return reference_of(value)


TokenizerSource = Annotated[
    ModelReference | str,
    PlainValidator(_source_of),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "description": f"The vocabulary of the merged model: {_TOKENIZER_FORM}.",
        }
    ),
]


class TokenizerOptions(Record):
    """The tokenizer of the merged model."""

    source: TokenizerSource = UNION
    """union: the tokens of all models, those of the base model first; base: those of the base model; or a model."""
    tokens: dict[Text, TokenOptions] | None = None
    """Tokens that the merged model has in any case, with the source of their rows."""
    pad_to_multiple_of: int | None = Field(default=None, ge=1)
    """Embeddings get rows without a token until their number is a multiple of this."""

    def within(self, folder: Path) -> TokenizerOptions:
        """Return the options with absolute local paths; relative ones start in `folder`."""
        source = self.source if isinstance(self.source, str) else self.source.within(folder)
        tokens = None
        if self.tokens is not None:
            tokens = {
                name: one.model_copy(update={"source": _row_within(one.source, folder)})
                for name, one in self.tokens.items()
            }
        return self.model_copy(update={"source": source, "tokens": tokens})

    @property
    def models(self) -> Iterator[ModelReference]:
        """The models whose rows single tokens take."""
        for one in (self.tokens or {}).values():
            if isinstance(one.source, ModelToken):
                yield one.source.model
            elif isinstance(one.source, ModelReference):
                yield one.source


def _row_within(row: TokenRow | None, folder: Path) -> TokenRow | None:
    if isinstance(row, ModelReference):
        return row.within(folder)
    return row.model_copy(update={"model": row.model.within(folder)}) if isinstance(row, ModelToken) else row


def _template(value: str) -> str:
    """Check a chat template: a name, or a text in the template language Jinja."""
    if value in {AUTO, *BUILT_IN_TEMPLATES}:
        return value
    if "{" not in value or len(value) < _LEAST_TEMPLATE:
        names = did_you_mean(value, (AUTO, *BUILT_IN_TEMPLATES))
        raise ValueError(f"{format_value(value)} is neither the name of a chat template nor one in Jinja{names}")
    mistake = syntax_problem(value)
    if mistake is not None:
        raise ValueError(f"the chat template cannot be read: {mistake}")
    return value


def template_of(value: object) -> str:
    """Return the value of `chat_template`."""
    if not isinstance(value, str):
        raise ValueError(f"expected text; got {format_value(value)}")
    return _template(value)


ChatTemplate = Annotated[
    str,
    PlainValidator(template_of),
    WithJsonSchema(
        {
            "anyOf": [{"enum": [AUTO, *BUILT_IN_TEMPLATES]}, {"type": "string", "minLength": _LEAST_TEMPLATE}],
            "description": "The chat template: auto (the one that most models have), a built-in one, or Jinja text.",
        }
    ),
]
