"""Writer of the GitHub workflow that runs a recipe on a schedule."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from hubmerge.errors import MachineError, UsageError
from merge_recipes import LoadedRecipe, Problem, RecipeError

_CRON = re.compile(r"[0-9*,/-]+( [0-9A-Za-z*,/-]+){4}")


def repository_root(recipe: Path) -> Path:
    """Return the root folder of the git repository with a recipe.

    Raises:
        MachineError: the recipe is not in a git repository.
    """
    folder = recipe.absolute().parent
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    raise MachineError(f"{recipe} is not in a git repository", hint="git init", file=str(recipe))


def workflow_text(loaded: LoadedRecipe, recipe: str, cron: str, requirement: str, *, oidc: bool) -> str:
    """Return the text of the workflow.

    Args:
        loaded: the recipe.
        recipe: its path in the repository.
        cron: when to run, five cron fields in UTC.
        requirement: what pip installs to get hubmerge.
        oidc: publish without a stored token.

    Raises:
        RecipeError: the recipe publishes nothing.
        UsageError: `cron` is not five cron fields.
    """
    publish = loaded.recipe.publish
    if publish is None:
        message = "automatic merging needs a recipe that publishes its steps: the key `publish` is missing"
        raise RecipeError(Problem(message, "add `publish: {repo: owner/name}`", str(loaded.path)))
    if _CRON.fullmatch(cron) is None:
        raise UsageError(f"{cron!r} is not a schedule: expected five cron fields", hint="--every '17 */6 * * *'")
    keyless = publish.sign is not None and publish.sign.is_keyless
    values = {
        "TARGET": publish.repo,
        "NAME": f"hubmerge {loaded.path.stem}" if loaded.path.stem.isascii() else "hubmerge",
        "CRON": cron,
        "RECIPE": json.dumps(recipe),
        "REQUIREMENT": json.dumps(requirement),
        "PERMISSIONS": "{contents: read, id-token: write}" if oidc or keyless else "{contents: read}",
        "TOKEN": "HF_OIDC_RESOURCE" if oidc else "HF_TOKEN",
        "VALUE": json.dumps(publish.repo) if oidc else "${{ secrets.HF_TOKEN }}",
    }
    text = files("hubmerge.automation").joinpath("workflow.yml").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"__{name}__", value)
    return text


def write_workflow(loaded: LoadedRecipe, cron: str, requirement: str, *, oidc: bool, force: bool) -> Path:
    """Write the workflow of a recipe and return its path.

    Raises:
        RecipeError: the recipe publishes nothing.
        MachineError: the recipe is not in a git repository.
        UsageError: a different workflow exists.
    """
    root = repository_root(loaded.path)
    recipe = loaded.path.absolute().relative_to(root).as_posix()
    if not recipe.isprintable():
        raise UsageError(f"{recipe!r}: a workflow cannot hold the characters of this path", hint="rename the file")
    text = workflow_text(loaded, recipe, cron, requirement, oidc=oidc)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", loaded.path.stem)
    path = root / ".github" / "workflows" / f"hubmerge-{name}.yml"
    if path.exists() and not force and path.read_text(encoding="utf-8") != text:
        raise UsageError(f"{path}: a different workflow exists", hint="add --force to replace it", file=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path
