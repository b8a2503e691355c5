"""Cost of adding one more model to a stream, on a machine that has nothing but the recipe.

Publishes a stream of small models to an embedded Hub, and at each length given adds one model from an empty cache and
an empty work folder. Prints what was fetched of models, and the CPU seconds of the run; the state, whose size does not
change, comes besides:

    python benchmarks/extend.py [--lengths 2 8 32] [--width 256] [--layers 4]
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from hubmerge.localhub import LocalHub


def push_models(models: int, width: int, layers: int, folder: Path) -> float:
    """Push a base model and `models` towers around it, all random; return the size of one in MB."""
    from huggingface_hub import HfApi
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=4, image_size=64
    )
    model = CLIPVisionModel._from_config(config)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    api = HfApi()
    for name in ("base", *(f"tower-{number}" for number in range(1, models + 1))):
        if name != "base":
            model.load_state_dict({key: value + 0.01 * torch.randn(value.shape) for key, value in start.items()})
        model.save_pretrained(folder)
        api.create_repo(f"local/{name}")
        api.upload_folder(repo_id=f"local/{name}", folder_path=folder)
    return (folder / "model.safetensors").stat().st_size / 1e6


def run(recipe: Path, root: Path, length: int) -> float:
    """Write the recipe for a stream of that length, run it, and return the CPU seconds it took."""
    lines = ["merge_method: opcm", "base_model: local/base", "models:"]
    lines += [f"  - {{model: local/tower-{number}, name: tower-{number}}}" for number in range(1, length + 1)]
    recipe.write_text("\n".join([*lines, "publish: {repo: local/merged}", ""]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--quiet", "--work-dir", str(root / "work")]
    subprocess.run(command, check=True, env={**os.environ, "HF_HOME": str(root / "home")})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fetched_megabytes(root: Path) -> float:
    """Return the size of what a run left in an empty Hub cache."""
    return (
        sum(path.stat().st_size for path in (root / "home").rglob("*") if path.is_file() and not path.is_symlink())
        / 1e6
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalHub(Path(name) / "hub") as hub:
        root = Path(name)
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(root / "seeding"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        size = push_models(max(options.lengths) + 1, options.width, options.layers, root / "model")
        print(f"models of {size:.1f} MB\n")
        print("| merged already | fetched into an empty cache | CPU seconds of the run that adds one |")
        print("| ---: | ---: | ---: |")
        for length in options.lengths:
            run(root / "recipe.yaml", root, length)
            for folder in ("work", "home"):
                shutil.rmtree(root / folder)
            spent = run(root / "recipe.yaml", root, length + 1)
            print(f"| {length} | {fetched_megabytes(root):.1f} MB | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
