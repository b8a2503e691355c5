"""Signer that a recipe asks for, checked before anything is merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hubmerge.provenance.signing import Signer
from merge_recipes import LoadedRecipe


def checked_signer(loaded: LoadedRecipe, folders: Mapping[str, Path] | None = None) -> Signer | None:
    """Return the signer of a recipe, None if it asks for no signatures.

    Args:
        loaded: The recipe.
        folders: Folders that may be shared or published, by what they are; the key must be in none of them.

    Raises:
        UsageError: The key cannot be used.
        MachineError: This machine cannot sign: a package, the passphrase or the identity is missing.
    """
    publish = loaded.recipe.publish
    if publish is None or publish.sign is None:
        return None
    folder = loaded.folder.absolute()
    signer = Signer(publish.sign.key_file(folder))
    shared = dict(folders or {})
    if loaded.recipe.base_model.is_local:
        # Its tokenizer, texts and other small files are published with the merged model.
        shared["the base model"] = Path(loaded.recipe.base_model.path)
    repository = next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)
    if repository is not None:
        shared["the git repository of the recipe"] = repository
    signer.check(shared)
    return signer
