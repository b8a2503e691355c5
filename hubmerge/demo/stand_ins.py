"""Stand-ins for all repos of recipes, so that the recipes run where the real repos cannot be reached.

    python -m hubmerge.demo.stand_ins --recipe recipes/opcm/clip-vit-base-patch32/8-tasks.yaml

Base model, vision towers and datasets have the ids, splits and columns of the recipe; weights and images are random.
They are pushed to the Hub of HF_ENDPOINT, which must not be the public one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from hubmerge.demo.stream import DemoRepo
from hubmerge.errors import HubError, HubmergeError
from hubmerge.support.redaction import shown
from merge_recipes import Recipe, Task, load_recipe

PUBLIC_HUBS = ("huggingface.co", "hf.co")
SEED = 0

Echo = Callable[[str], None]


def make_stand_ins(
    recipe: Recipe, folder: Path, *, full: bool = False, images: int = 2, rows: int | None = None
) -> Iterator[DemoRepo]:
    """Write a stand-in for every repo of the recipe, and yield it; the caller may remove its folder.

    Args:
        recipe: the recipe.
        folder: the folder of the stand-ins.
        full: True for models of the real size, False for tiny ones.
        images: the number of images per class.
        rows: the maximum number of rows of a dataset; None for no limit.

    Raises:
        HubmergeError: the sizes of the base model are not known, or a task has no images.
    """
    from hubmerge.demo import stand_in_data, stand_in_models

    tasks = recipe.evaluate.tasks if recipe.evaluate is not None else ()
    for number, task in enumerate(tasks):
        data = DemoRepo("dataset", task.dataset.path, folder / f"dataset-{number}")
        stand_in_data.write_dataset(data.folder, task, images, rows)
        yield data
    size = stand_in_models.size_of(recipe.base_model.short_name, full=full)
    sentences = [sentence for task in tasks for sentence in _sentences(task, stand_in_data.class_names(task))]
    model, tokenizer = stand_in_models.make_base(size, sentences, SEED)
    base = DemoRepo("model", recipe.base_model.path, folder / "base")
    stand_in_models.write_base(base.folder, model, tokenizer, base.repo)
    yield base
    for number, entry in enumerate(recipe.entries, start=1):
        tower = DemoRepo("model", entry.model.path, folder / f"tower-{number}")
        stand_in_models.write_tower(tower.folder, model, tower.repo, SEED + number, base.repo)
        yield tower


def push_stand_ins(
    recipes: Sequence[Recipe], echo: Echo = print, *, full: bool = False, images: int = 2, rows: int | None = None
) -> int:
    """Make the stand-ins of recipes, push each repo once, and return the number of repos.

    The temporary folder contains one repo at a time.

    Raises:
        HubError: HF_ENDPOINT is not set or is the public Hub, or the Hub refuses.
    """
    check_endpoint(os.environ.get("HF_ENDPOINT", ""))
    from hubmerge.hub.folders import publish_folder

    done: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory(prefix="hubmerge-stand-ins-") as temporary:
        for number, recipe in enumerate(recipes):
            folder = Path(temporary) / str(number)
            for repo in make_stand_ins(recipe, folder, full=full, images=images, rows=rows):
                if (repo.kind, repo.repo) not in done:
                    pushed = publish_folder(repo.kind, repo.repo, repo.folder, title="Add a stand-in")
                    echo(f"{repo.kind} {repo.repo}: {'pushed' if pushed else 'already there'}")
                done.add((repo.kind, repo.repo))
                shutil.rmtree(repo.folder)
    return len(done)


def check_endpoint(endpoint: str) -> None:
    """Raise an error if the endpoint is missing or is the public Hub, where the names belong to other people.

    Raises:
        HubError: the endpoint is missing or public.
    """
    host = (urlsplit(endpoint).hostname or "").lower()
    if not host:
        raise HubError(
            "HF_ENDPOINT is not set to the address of a Hub",
            hint="start one, and set the variables that it prints: hubmerge hub serve",
        )
    if any(host == public or host.endswith(f".{public}") for public in PUBLIC_HUBS):
        raise HubError(
            f"stand-ins cannot be pushed to the public Hub {host}",
            hint="start another one, and set the variables that it prints: hubmerge hub serve",
        )


def _sentences(task: Task, names: Sequence[str]) -> Iterator[str]:
    return (prompt.replace("{}", name) for name in names for prompt in task.prompts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hubmerge.demo.stand_ins", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--recipe", type=Path, action="append", required=True, metavar="FILE", help="may be repeated")
    parser.add_argument("--full", action="store_true", help="make models of the real size (default: tiny ones)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="number of images per class (default: 2)")
    parser.add_argument("--rows", type=int, metavar="N", help="maximum number of rows of a dataset (default: no limit)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        recipes = [load_recipe(path).recipe for path in options.recipe]
        count = push_stand_ins(recipes, full=options.full, images=options.images, rows=options.rows)
    except HubmergeError as error:
        print(shown(str(error)), file=sys.stderr)
        return error.exit_code
    print(f"{count} repos stand in for {len(recipes)} recipes on {os.environ['HF_ENDPOINT']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
