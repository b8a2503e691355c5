"""Writes the GitHub workflow that runs a recipe by itself into a repository of the user's."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.support.version import VERSION
from merge_recipes import LoadedRecipe, Problem, RecipeError

_CRON = re.compile(r"[0-9*,/-]+( [0-9A-Za-z*,/-]+){4}")


def repository_root(recipe: Path) -> Path:
    """Return the folder of the git repository that a recipe lies in.

    Raises:
        MachineError: it lies in none.
    """
    folder = recipe.absolute().parent
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    raise MachineError(f"{recipe}: lies in no git repository", hint="run `git init` in the folder that goes to GitHub")


def workflow_text(loaded: LoadedRecipe, recipe: str, cron: str, *, oidc: bool) -> str:
    """Return the workflow for a recipe, `recipe` being its path in the repository.

    Raises:
        RecipeError: the recipe publishes nothing.
        MachineError: `cron` is no schedule.
    """
    publish = loaded.recipe.publish
    if publish is None:
        message = "a recipe that merges by itself publishes its steps: it has no `publish`"
        raise RecipeError(Problem(message, "add `publish: {repo: owner/name}`", str(loaded.path)))
    if _CRON.fullmatch(cron) is None:
        raise MachineError(f"{cron!r} is no schedule", hint="expected five fields, for example '17 */6 * * *'")
    values = {
        "TARGET": publish.repo,
        "NAME": f"hubmerge {loaded.path.stem}" if loaded.path.stem.isascii() else "hubmerge",
        "CRON": cron,
        "RECIPE": json.dumps(recipe),
        "REQUIREMENT": f"hubmerge=={VERSION}",
        "PERMISSIONS": "{contents: read, id-token: write}" if oidc else "{contents: read}",
        "TOKEN": "HF_OIDC_RESOURCE" if oidc else "HF_TOKEN",
        "VALUE": json.dumps(publish.repo) if oidc else "${{ secrets.HF_TOKEN }}",
    }
    text = files("hubmerge.automation").joinpath("workflow.yml").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"__{name}__", value)
    return text


def write_workflow(loaded: LoadedRecipe, cron: str, *, oidc: bool, force: bool) -> Path:
    """Write the workflow of a recipe and return where it lies.

    Raises:
        RecipeError: the recipe publishes nothing.
        MachineError: it lies in no git repository, or another workflow of that name is there.
    """
    root = repository_root(loaded.path)
    recipe = loaded.path.absolute().relative_to(root).as_posix()
    if not recipe.isprintable():
        raise MachineError(f"{recipe!r}: the path holds characters that a workflow cannot", hint="rename the file")
    text = workflow_text(loaded, recipe, cron, oidc=oidc)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", loaded.path.stem)
    path = root / ".github" / "workflows" / f"hubmerge-{name}.yml"
    if path.exists() and not force and path.read_text(encoding="utf-8") != text:
        raise MachineError(f"{path}: is there already and differs", hint="add --force to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
