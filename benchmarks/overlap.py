"""Overlap of the stages of a run, on an embedded Hub that lets 20 MB/s through.

Prints the seconds of each stage alone (fetching all checkpoints, merging from local folders, uploading every step), and
of a whole run of the same stream:

    python benchmarks/overlap.py [--models 6] [--width 512] [--layers 4] [--throttle 20]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from hubmerge.localhub import LocalHub


def make_models(folder: Path, models: int, width: int, layers: int) -> None:
    """Write a base model and `models` towers around it, all random: only sizes matter here."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=8, image_size=64
    )
    base = CLIPVisionModel._from_config(config)
    base.save_pretrained(folder / "base")
    values = {name: value.clone() for name, value in base.state_dict().items()}
    for number in range(1, models + 1):
        moved = {
            name: value + 0.01 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in values.items()
        }
        base.load_state_dict(moved)
        base.save_pretrained(folder / f"tower-{number}")


def recipe_text(names: list[str], base: str, publish: str) -> str:
    """Return a recipe over the named models."""
    lines = ["merge_method: opcm", f"base_model: {base}", "models:"]
    lines += [f"  - {{model: {name}, name: tower-{number}}}" for number, name in enumerate(names, 1)]
    return "\n".join([*lines, publish, ""])


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--throttle", type=float, default=20.0, help="MB/s in each direction")
    parser.add_argument("--state", default="last", choices=["last", "every", "none"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), options)


def measure(root: Path, options: argparse.Namespace) -> None:
    """Seed a Hub at full speed, then slow it down and time the stages alone and together."""
    models = root / "models"
    make_models(models, options.models, options.width, options.layers)
    towers = [f"tower-{number}" for number in range(1, options.models + 1)]
    size = (models / "base" / "model.safetensors").stat().st_size / 1e6
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    run = [sys.executable, "-m", "hubmerge", "run", "--quiet"]

    local = root / "local.yaml"
    local.write_text(recipe_text([f"./models/{name}" for name in towers], "./models/base", ""))
    merging = seconds(
        lambda: subprocess.run([*run, str(local), "--work-dir", str(root / "merging")], env=environment, check=True)
    )
    with LocalHub(root / "hub") as hub:
        upload(hub, models, ["base", *towers], root, environment)
    with LocalHub(root / "hub", throttle=options.throttle) as hub:
        client = {**environment, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token}
        code = "import sys, huggingface_hub as h\nfor n in sys.argv[1:]: h.snapshot_download('local/' + n)"
        names = ["base", *towers]
        fetching = seconds(
            lambda: subprocess.run(
                [sys.executable, "-c", code, *names], env={**client, "HF_HOME": str(root / "fetching")}, check=True
            )
        )
        remote = root / "remote.yaml"
        publish = f"publish: {{repo: local/merged, state: {options.state}}}"
        remote.write_text(recipe_text([f"local/{name}" for name in towers], "local/base", publish))
        together = seconds(
            lambda: subprocess.run(
                [*run, str(remote), "--work-dir", str(root / "work")],
                env={**client, "HF_HOME": str(root / "home")},
                check=True,
            )
        )
        uploaded = publishing_seconds(client, root)
    stages = {"fetching": fetching, "merging": merging, "publishing": uploaded}
    print(f"{options.models} models of {size:.1f} MB, {options.throttle:g} MB/s in each direction\n")
    print("| stage | seconds |\n| :--- | ---: |")
    for stage, duration in stages.items():
        print(f"| {stage}, alone | {duration:.1f} |")
    print(f"| sum of the stages | {sum(stages.values()):.1f} |")
    print(f"| **the whole run** | **{together:.1f}** |")
    print(f"\nthe whole run takes {together / max(stages.values()):.2f} times its longest stage")


def upload(hub: LocalHub, folder: Path, names: list[str], root: Path, environment: dict[str, str]) -> None:
    """Push model folders to the Hub."""
    code = (
        "import sys, huggingface_hub as h\napi = h.HfApi()\n"
        "for n in sys.argv[2:]:\n"
        "    api.create_repo('local/' + n, exist_ok=True)\n"
        "    api.upload_folder(repo_id='local/' + n, folder_path=sys.argv[1] + '/' + n)"
    )
    client = {**environment, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(root / "seeding")}
    subprocess.run([sys.executable, "-c", code, str(folder), *names], env=client, check=True)


def publishing_seconds(client: dict[str, str], root: Path) -> float:
    """Time the upload of everything that the run published, file by file, to a repo of its own."""
    code = (
        "import os, sys, time, huggingface_hub as h\napi = h.HfApi()\n"
        "repo, out = 'local/merged', sys.argv[1]\n"
        "tags = [ref.name for ref in api.list_repo_refs(repo).tags]\n"
        "folders = [api.snapshot_download(repo, revision=tag, local_dir=f'{out}/{tag}') for tag in tags]\n"
        "folders += [p for p in [api.snapshot_download(repo, revision='hubmerge-state', local_dir=f'{out}/states')]"
        " if sys.argv[2] != 'none']\n"
        "api.create_repo('local/again')\n"
        "total = 0.0\n"
        "for folder in folders:\n"
        "    for base, _, files in os.walk(folder):\n"
        "        for name in files:\n"
        "            path = os.path.join(base, name)\n"
        "            if '.cache' in base: continue\n"
        "            # a byte of our own: an object that the Hub has already would not be sent\n"
        "            with open(path, 'ab') as f: f.write(os.urandom(8))\n"
        "            copies = (len(tags) / 2) if 'accumulated' in name else 1\n"
        "            started = time.monotonic()\n"
        "            api.upload_file(repo_id='local/again', path_or_fileobj=path, path_in_repo=f'{id(path)}/{name}')\n"
        "            total += copies * (time.monotonic() - started)\n"
        "print(total)"
    )
    branches = "last" if "state: none" not in (root / "remote.yaml").read_text() else "none"
    done = subprocess.run(
        [sys.executable, "-c", code, str(root / "published"), branches],
        env={**client, "HF_HOME": str(root / "again")},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
