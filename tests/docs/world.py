"""A Hub with tiny models under the names that the documentation uses, and the files that its commands read."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, snapshot_download

from hubmerge.cli.main import main
from tests.docs.blocks import Block, blocks
from tests.stage import Stage

CLIP = "tanganke/clip-vit-base-patch32"
BASES = ("openai/clip-vit-base-patch32", "me/base")
TOWERS = (f"{CLIP}_sun397", f"{CLIP}_stanford-cars", f"{CLIP}_resisc45", "me/letters", "me/digits", "me/cats")


class World:
    """The Hub, and a folder with the checkpoints."""

    def __init__(self, stage: Stage) -> None:
        self.base = Path(snapshot_download(stage.base))
        self.towers = [Path(snapshot_download(repo)) for repo in stage.towers.values()]
        for repo in BASES:
            _upload(repo, self.base)
        for number, repo in enumerate(TOWERS):
            _upload(repo, self.towers[number % len(self.towers)])
        dataset = snapshot_download(next(iter(stage.datasets.values())), repo_type="dataset")
        _upload("tanganke/sun397", Path(dataset), kind="dataset")

    def prepare(self, document: str, folder: Path) -> None:
        """Write the files and publish the streams that the commands of a document name."""
        (folder / "recipe.yaml").write_text(recipe_of(document), encoding="utf-8")
        getattr(self, f"_{Path(document).stem.lower()}", lambda _: None)(folder)

    def _mergekit(self, folder: Path) -> None:
        (folder / "my-recipes").mkdir()
        shutil.copy(folder / "recipe.yaml", folder / "my-recipes")
        shutil.copytree(self.towers[0], folder / "mergekit-out")

    def _automation(self, folder: Path) -> None:
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)

    def _json(self, folder: Path) -> None:
        self._publish(folder, None, "me/letters")

    def _streams(self, folder: Path) -> None:
        shutil.copytree(self.base, folder / "merged-a")
        shutil.copytree(self.towers[0], folder / "merged-b")
        self._publish(folder, "me/merged", "me/letters", "me/digits", "me/cats")
        self._publish(folder, "me/animals", "me/cats")
        self._publish(folder, "you/plants", "me/digits")

    def _security(self, folder: Path) -> None:
        (folder / "keys").mkdir()
        self._publish(folder, "your-name/merged", "me/cats", out="merged")

    def _scaling(self, folder: Path) -> None:
        for part in ("1/2",):
            _run(folder / "recipe.yaml", "--part", part)
        for number in (1, 3):
            _run(folder / "recipe.yaml", "--part", f"{number}/3", "--out", folder / f"part-{number}")

    def _study(self, folder: Path) -> None:
        """Write the study of the page with fewer merges."""
        (text,) = (block.text for block in blocks("yaml") if block.document == "docs/study.md")
        for old, new in (("orders: 10", "orders: 1"), ("[4, 8]", "[2]"), ("./quickstart.yaml", "./recipe.yaml")):
            assert old in text
            text = text.replace(old, new)
        (folder / "study.yaml").write_text(text, encoding="utf-8")

    def _publish(self, folder: Path, repo: str | None, *models: str, out: str | None = None) -> None:
        recipe = _recipe(repo, *models)
        path = folder / f"{'-'.join(models).replace('/', '-')}.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        _run(path, *(() if out is None else ("--out", folder / out)))


def recipe_of(document: str) -> str:
    """Return the recipe that a document shows as recipe.yaml, or a small one."""
    shown = next((block for block in blocks("yaml") if _is_recipe_file(block, document)), None)
    return yaml.safe_dump(_RECIPES.get(document, _RECIPE)) if shown is None else shown.text


def _recipe(repo: str | None, *models: str, **keys: Any) -> dict[str, Any]:
    publish = {} if repo is None else {"publish": {"repo": repo}}
    entries = [{"model": model} for model in models]
    return {"merge_method": "wudi", "base_model": "me/base", "models": entries, **publish, **keys}


_RECIPE = _recipe(None, "me/letters", "me/digits")
_RECIPES: Mapping[str, dict[str, Any]] = {
    "docs/automation.md": _recipe("your-name/automated", "me/letters"),
    "docs/scaling.md": _recipe("your-name/parted", "me/letters", "me/digits", "me/cats"),
}


def _is_recipe_file(block: Block, document: str) -> bool:
    return block.document == document and block.text.startswith("# recipe.yaml\n")


def _run(recipe: Path, *flags: str | Path) -> None:
    assert main(["run", str(recipe), "--quiet", *map(str, flags)]) == 0


def _upload(repo: str, folder: Path, kind: str = "model") -> None:
    api = HfApi()
    api.create_repo(repo, repo_type=kind, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder, repo_type=kind)
