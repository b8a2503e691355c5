"""Train the two tiny language streams of the demo into folders, and write their recipes for studies.

python benchmarks/study/language.py                        seed 0
python benchmarks/study/language.py FOLDER 1               another seed, into another folder
hubmerge study benchmarks/study/language-bert.yaml
hubmerge study benchmarks/study/language-gpt2.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from hubmerge.demo.language.make_repos import make_language

FOLDER = Path(__file__).parent / "streams"
RECIPES = Path(__file__).parents[2] / "recipes"
NAMESPACE = "hubmerge-demo"


def main(folder: Path = FOLDER, seed: int = 0) -> None:
    """Make both streams and their recipes in a folder that does not have them."""
    repos = folder / f"language-{seed}"
    for repo in make_language(repos, NAMESPACE, seed=seed):
        print(repo.repo, flush=True)
    for name, recipe in (("bert", "language-quickstart"), ("gpt2", "language-writing")):
        content = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
        del content["publish"]
        content["parameters"] = {}
        file = folder / f"recipe-language-{name}-{seed}.yaml"
        file.write_text(yaml.safe_dump(local(content, f"./{repos.name}"), sort_keys=False), encoding="utf-8")


def local(value: Any, folder: str) -> Any:
    """Return a recipe with folders in place of the demo's repos."""
    if isinstance(value, dict):
        return {key: local(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [local(item, folder) for item in value]
    prefix = f"{NAMESPACE}/"
    return f"{folder}/{value.removeprefix(prefix)}" if isinstance(value, str) and value.startswith(prefix) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, int(sys.argv[2]) if len(sys.argv) > 2 else 0)
