"""Recipes: read one, check it, lock it; the methods and the JSON Schema of the recipe language."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hubmerge.api.local_vocabularies import local_warnings
from hubmerge.api.missing_folders import missing_folders, without_position
from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.yaml_text import yaml_text
from hubmerge.errors import UsageError
from hubmerge.support.text import counted

if TYPE_CHECKING:
    from hubmerge.support.progress import Progress
    from merge_recipes import LoadedRecipe, Lock, RecipeError

RecipeLike: TypeAlias = "LoadedRecipe | str | os.PathLike[str] | Mapping[str, Any]"
"""A recipe that was loaded, the path of its file, or a dict with the keys of a recipe."""


def load(recipe: RecipeLike, *, progress: ProgressOption = None) -> LoadedRecipe:
    """Read a recipe and check it against the installed methods, kinds of task and metrics.

    Args:
        recipe: the path of a YAML file, or a dict with the keys of a recipe. Relative paths of local models start
            from the folder of the file; in a dict they start from the current folder.
        progress: receives remarks about the recipe, such as a checkpoint that is merged twice.

    Returns:
        The checked recipe. `.recipe` has its values, `.text` its YAML.

    Raises:
        RecipeError: the recipe has problems; all are listed, each with its key path, and with its line if the recipe
            is a file.

    Example:
        >>> import hubmerge
        >>> loaded = hubmerge.load(
        ...     {"merge_method": "opcm", "base_model": "me/base", "models": [{"model": "me/a"}, {"model": "me/b"}]}
        ... )
        >>> [entry.name for entry in loaded.recipe.entries]
        ['a', 'b']
    """
    from hubmerge.stream.load import load as load_file
    from merge_recipes import LoadedRecipe

    if isinstance(recipe, LoadedRecipe):
        return recipe
    if isinstance(recipe, Mapping):
        return _load_mapping(recipe, open_progress(progress))
    return load_file(Path(recipe), open_progress(progress))


def _load_mapping(recipe: Mapping[str, Any], progress: Progress) -> LoadedRecipe:
    from hubmerge.stream.catalog import installed_catalog
    from hubmerge.stream.revocation import check_revocable
    from merge_recipes import RecipeError, check_recipe, parse_recipe

    catalog = installed_catalog()
    text = yaml_text(recipe)
    name = f"recipe-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    try:
        loaded = parse_recipe(text, path=name, catalog=catalog)
    except RecipeError as error:
        # Lines of the generated text mean nothing to the caller; the key path is the place.
        raise RecipeError([without_position(problem) for problem in error.problems]) from None
    for remark in check_recipe(loaded, catalog):
        progress.note(f"note: {remark}")
    check_revocable(loaded)
    return loaded


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe without problems; `str()` of it is a line such as `OK: opcm, 8 checkpoints + 1 query`."""

    recipe: LoadedRecipe

    @property
    def merge_method(self) -> str:
        """Name of the merge method."""
        return self.recipe.recipe.merge_method

    @property
    def checkpoints(self) -> int:
        """Number of checkpoints that the recipe names."""
        return len(self.recipe.recipe.entries)

    @property
    def queries(self) -> int:
        """Number of queries that find further checkpoints on the Hub."""
        return len(self.recipe.recipe.models) - self.checkpoints

    def __str__(self) -> str:
        checkpoints = [counted(self.checkpoints, "checkpoint")] if self.checkpoints else []
        queries = [counted(self.queries, "query", "queries")] if self.queries else []
        stages = f"{counted(len(self.recipe.stages), 'stage')}, then " if self.recipe.stages else ""
        return f"OK: {stages}{self.merge_method}, {' + '.join([*checkpoints, *queries])}"


def check(recipe: RecipeLike, *, progress: ProgressOption = None) -> CheckedRecipe:
    """Check a recipe without network access: its keys and values, and that local folders exist.

    Tokenizers of local models are compared with that of the base model.

    Raises:
        RecipeError: the recipe has problems; all are listed.

    Example:
        >>> import hubmerge
        >>> str(hubmerge.check({"merge_method": "opcm", "base_model": "me/base", "models": [{"model": "me/a"}]}))
        'OK: opcm, 1 checkpoint'
    """
    from merge_recipes import RecipeError

    loaded = load(recipe, progress=progress)
    missing = [problem for one in (*loaded.stages, loaded) for problem in missing_folders(one)]
    if missing:
        raise RecipeError(missing)
    reports = open_progress(progress)
    for warning in local_warnings(loaded):
        reports.note(f"warning: {warning}")
    return CheckedRecipe(loaded)


@dataclass(frozen=True)
class FolderCheck:
    """Recipes of a folder; `str()` of it is a table with a line for each, and a summary."""

    results: Mapping[Path, CheckedRecipe | RecipeError]
    """For each file its recipe, or what is wrong with it."""

    @property
    def valid(self) -> int:
        """Number of recipes without problems."""
        return sum(isinstance(result, CheckedRecipe) for result in self.results.values())

    def __str__(self) -> str:
        width = max(len(str(path)) for path in self.results)
        lines = [f"{str(path).ljust(width)}  {_in_a_line(result)}" for path, result in self.results.items()]
        lines.append(f"{self.valid} of {counted(len(self.results), 'recipe')} valid")
        several = any(len(getattr(result, "problems", ())) > 1 for result in self.results.values())
        return "\n".join([*lines, *(["hubmerge check FILE lists all problems of a recipe"] if several else [])])


def _in_a_line(result: CheckedRecipe | RecipeError) -> str:
    if isinstance(result, CheckedRecipe):
        return str(result)
    first, *others = result.problems
    place = f"line {first.line}: " if first.line is not None else ""
    more = f" (and {counted(len(others), 'more problem')})" if others else ""
    return f"{place}{first.key}{': ' if first.key else ''}{first.message}{more}"


def check_folder(folder: str | os.PathLike[str]) -> FolderCheck:
    """Check all recipes in a folder and the folders in it: files that end in .yaml or .yml, without locks.

    Raises:
        UsageError: there is no recipe in the folder.
    """
    from merge_recipes import RecipeError

    top = Path(folder)
    found = [path for path in sorted(top.rglob("*")) if path.suffix in {".yaml", ".yml"} and path.is_file()]
    files = [path for path in found if not f".{path.name}".endswith((".lock.yaml", ".lock.yml"))]
    if not files:
        raise UsageError(f"no recipe in {top}", hint="name a folder with files that end in .yaml or .yml")
    results: dict[Path, CheckedRecipe | RecipeError] = {}
    for path in files:
        try:
            results[path.relative_to(top)] = check(path)
        except RecipeError as error:
            results[path.relative_to(top)] = error
    return FolderCheck(results)


def convert(recipe: RecipeLike) -> str:
    """Return what a recipe means, as the text of a recipe with all defaults filled in.

    The first lines are comments: base model, layers, tokenizer and dtypes of the merge, and remarks.

    Raises:
        RecipeError: the recipe has problems; all are listed.

    Example:
        >>> import hubmerge
        >>> print(hubmerge.convert({"merge_method": "linear", "models": [{"model": "me/a"}, {"model": "me/b"}]}))
        # order: 2 models are merged at once
        # base model: none; the first model lends config, tokenizer and names of tensors, and is merged like the others
        # layers: all layers of every model
        # tokenizer, chat template and config: copied from me/a; none is built
        # dtype: weights are read as they are stored; the merged model is written in the dtype of me/a
        merge_method: linear
        form: joint
        models:
        - model: me/a
          name: a
        - model: me/b
          name: b
        parameters:
          weight: 1.0
          normalize: true
        <BLANKLINE>
    """
    from hubmerge.stream.catalog import installed_catalog
    from merge_recipes import converted

    loaded = load(recipe)
    documents = []
    for one in (*loaded.stages, loaded):
        comments, keys = converted(one, installed_catalog())
        named = {"name": one.stage, **keys} if one.stage is not None else keys
        documents.append("".join(f"# {comment}\n" for comment in comments) + yaml_text(named))
    return "---\n".join(documents)


@dataclass(frozen=True)
class WrittenLock:
    """A lock beside its recipe."""

    path: Path
    """The file, `RECIPE.lock.yaml`."""
    lock: Lock
    """Its content: one commit for each model and each dataset."""
    changed: bool
    """False if the file already had this content."""


def lock(recipe: RecipeLike, *, update: bool = False, progress: ProgressOption = "auto") -> WrittenLock:
    """Resolve every reference of a recipe to a commit and write the lock beside the recipe's file.

    Args:
        recipe: the path of a YAML file, or a recipe loaded from one.
        update: take the newest commit of everything that is not published yet.
        progress: see `hubmerge.run`.

    Raises:
        RecipeError: the recipe has problems.
        UsageError: the recipe is a dict, which has no file.
        HubError: a repo cannot be read.
    """
    from hubmerge.stream.lockfile import lock_path, write_lock
    from hubmerge.stream.pinned import PinnedCommits
    from hubmerge.stream.resolution import resolve_stream
    from hubmerge.support.versions import (
        EVALUATION_LIBRARIES,
        KIND_LIBRARIES,
        LIBRARIES,
        installed_versions,
        is_installed,
    )

    reports = open_progress(progress)
    loaded = load(recipe, progress=reports)
    if not loaded.path.is_file():
        raise UsageError("a recipe that is a dict has no file to put a lock beside", hint="write it to recipe.yaml")
    with reports.stage("resolve commits"):
        stream = resolve_stream(loaded, PinnedCommits.gather(loaded, update=update))
    kinds = {task.kind for task in (loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ())}
    others = {one for kind in kinds & {*KIND_LIBRARIES} for one in KIND_LIBRARIES[kind] if is_installed(one)}
    versions = installed_versions((*LIBRARIES, *EVALUATION_LIBRARIES, *others))
    content = stream.lock.model_copy(update={"versions": versions})
    return WrittenLock(lock_path(loaded.path), content, changed=write_lock(loaded, content))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, with the installed methods and kinds of task, for editors.

    Example:
        >>> import hubmerge
        >>> hubmerge.schema()["type"]
        'object'
    """
    from hubmerge.stream.catalog import installed_catalog
    from merge_recipes import json_schema

    return json_schema(installed_catalog())


def plain_value(text: str) -> Any:
    """Return a text as the value that a recipe has if it is written without quotes.

    Example:
        >>> plain_value("1.5"), plain_value("keep")
        (1.5, 'keep')

    Raises:
        ValueError: YAML reads the text as something that recipes do not have.
    """
    from merge_recipes.yaml_scalars import resolve_plain

    return resolve_plain(text)
