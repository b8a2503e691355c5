"""Run recipes with mergekit, all in one process: `python tests/mergekit/run_recipes.py RECIPES.json FOLDER`.

Writes each model into `FOLDER/NUMBER`, and why others failed into `FOLDER/errors.json`. The Python must have mergekit.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    """Run all recipes."""
    configuration = importlib.import_module("mergekit.config").MergeConfiguration
    run_merge = importlib.import_module("mergekit.merge").run_merge
    options = importlib.import_module("mergekit.options").MergeOptions
    folder, errors = Path(sys.argv[2]), {}
    chosen = options(copy_tokenizer=False, quiet=True, lora_merge_cache=str(folder / "adapters"))
    for number, recipe in enumerate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))):
        try:
            run_merge(configuration.model_validate(recipe), str(folder / str(number)), chosen)
        except Exception as error:
            errors[number] = f"{type(error).__name__}: {error}"
    (folder / "errors.json").write_text(json.dumps(errors), encoding="utf-8")


if __name__ == "__main__":
    main()
