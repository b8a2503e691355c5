"""What the tokenizer keys of a recipe mean, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from merge_recipes.errors import format_value
from merge_recipes.references import ModelReference
from merge_recipes.schema import Recipe
from merge_recipes.tokenizer_keys import AUTO, BASE, BUILT_IN_TEMPLATES, UNION, ModelToken, TokenOptions, ZeroRow

TOKENS_SHOWN = 12
"""Number of tokens in a table; the others are counted."""


def tokenizer_sentences(recipe: Recipe, *, joint: bool) -> Iterator[str]:
    """Yield sentences about tokenizer, rows of embeddings, config and chat template of the merged model.

    Args:
        recipe: the recipe.
        joint: True if all models are merged at once, so that the vocabulary can change.
    """
    base, options, template = recipe.base_model, recipe.tokenizer_options, recipe.chat_template
    if options is None or not joint:
        what = "tokenizer and config" if template is not None else "tokenizer, chat template and config"
        yield f"{what}: copied from {base}; none is built"
    else:
        yield f"tokenizer: {_vocabulary(recipe)}"
        rule = f"that of {base}, else the mean" if recipe.names_base else "the mean"
        yield f"rows of tokens that a model lacks: {rule} of the models that have the token; zeros if none has it"
        yield from _tokens(options.tokens or {})
        if options.pad_to_multiple_of is not None:
            yield f"rows: filled up to a multiple of {options.pad_to_multiple_of} with the mean of all rows"
        yield f"config: copied from {base}, with the new size of the vocabulary and numbers of special tokens"
    if template is not None:
        yield f"chat template: {template_text(template)}"


def _vocabulary(recipe: Recipe) -> str:
    options = recipe.tokenizer_options
    source = BASE if options is None else options.source
    if source == UNION:
        return f"the tokens of all models, those of {recipe.base_model} first; `hubmerge plan` lists the others"
    return f"the tokens of {recipe.base_model if source == BASE else source}"


def _tokens(tokens: dict[str, TokenOptions]) -> Iterator[str]:
    """Yield one line for each token that the recipe names, up to a number."""
    for name, options in list(tokens.items())[:TOKENS_SHOWN]:
        whom = "for all models" if options.force else "for models that lack it"
        yield f"token {format_value(name)}: {row_text(options)}, {whom}"
    if len(tokens) > TOKENS_SHOWN:
        yield f"and {len(tokens) - TOKENS_SHOWN} more tokens"


def row_text(options: TokenOptions) -> str:
    """Return where the row of a token comes from, in words."""
    source = options.source
    if isinstance(source, ModelReference):
        return f"the row of {source}"
    if isinstance(source, ModelToken):
        token = f"number {source.token_id}" if source.token is None else format_value(source.token)
        return f"the row of the token {token} of {source.model}"
    return "zeros" if isinstance(source, ZeroRow) else "the row by the rule above"


def template_text(template: str) -> str:
    """Return what a chat template in a recipe is, in words."""
    if template == AUTO:
        return "that which most of the models have"
    return f"the built-in {template}" if template in BUILT_IN_TEMPLATES else "the text in the recipe"
