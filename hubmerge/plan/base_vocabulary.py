"""Recipes that ask for the base model's tokenizer where nothing has to be built."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.model_class.embeddings import Embeddings, find_embeddings
from hubmerge.checkpoints.vocabulary.comparison import is_vocabulary_file, plain_vocabulary
from hubmerge.checkpoints.vocabulary.tokenizer import is_tokenizer_file
from hubmerge.stream.sources import Source
from hubmerge.stream.tokenizer_files import read_files
from merge_recipes import Recipe
from merge_recipes.references import checkpoint_key
from merge_recipes.tokenizer_keys import BASE


def keeps_base_files(recipe: Recipe, sources: Sequence[Source], checkpoints: Sequence[Checkpoint]) -> bool:
    """Return True if a recipe asks for the tokenizer of the base model alone, and its rows are merged by number anyway.

    That is so if the base model has no tokenizer, or if the class of a model is not known and all have equal tokens.

    Args:
        recipe: the recipe.
        sources: the models, the base model first.
        checkpoints: the opened models, in the same order.
    """
    options = recipe.tokenizer_options
    if options is None or options.tokens or options.pad_to_multiple_of is not None:
        return False
    source = options.source
    if source != BASE and (isinstance(source, str) or checkpoint_key(source) != checkpoint_key(recipe.base_model)):
        return False
    if not read_files(sources[0], is_tokenizer_file):
        return True
    if all(isinstance(find_embeddings(one.config, one.tensors), Embeddings) for one in checkpoints):
        return False
    found = [plain_vocabulary(files) for one in sources if (files := read_files(one, is_vocabulary_file))]
    return all(one is not None and one == found[0] for one in found)
