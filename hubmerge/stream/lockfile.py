"""Lock beside a recipe: `recipe.lock.yaml`, written by `hubmerge lock recipe.yaml`."""

from __future__ import annotations

from pathlib import Path

from hubmerge.support.files import write_output
from hubmerge.support.text import in_shell
from merge_recipes import LoadedRecipe, Lock, RecipeFileError, check_lock
from merge_recipes.errors import Problem
from merge_recipes.read_yaml import read_text


def lock_path(recipe: Path) -> Path:
    """Return the path of the lock beside a recipe."""
    return recipe.with_name(f"{recipe.stem}.lock.yaml")


def read_lock(loaded: LoadedRecipe) -> Lock | None:
    """Return the lock beside a recipe, None if there is none.

    Raises:
        LockError: The file is not a lock.
    """
    path = lock_path(loaded.path)
    if not path.exists():
        return None
    return Lock.from_yaml(read_text(path), file=str(path)).within(loaded.folder.absolute())


def require_lock(loaded: LoadedRecipe) -> Lock:
    """Return the lock beside a recipe after checking that it was made from the recipe.

    Raises:
        RecipeFileError: There is no lock.
        LockError: The file is not a lock, or it was made from another recipe.
    """
    path = lock_path(loaded.path)
    lock = read_lock(loaded)
    if lock is None:
        raise RecipeFileError(
            Problem("lock not found", f"create it with: hubmerge lock {in_shell(loaded.path)}", str(path))
        )
    check_lock(loaded.recipe, lock, file=str(path))
    return lock


def write_lock(loaded: LoadedRecipe, lock: Lock) -> bool:
    """Write the lock beside a recipe and return True if its content changed."""
    path, text = lock_path(loaded.path), lock.to_yaml()
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_output(path, text)
    return True
