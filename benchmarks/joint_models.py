"""Models for `mergekit_joint.py`: made-up weights around one base model, in folders that are written once."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mergekit import without_prefix
from opcm import stream_folders


@dataclass(frozen=True)
class Shape:
    """A set of models: the largest number of checkpoints that a merge gets, and the function that writes them.

    `write` returns the folder of the base model and those of the checkpoints.
    """

    checkpoints: int
    dtype: str
    write: Callable[[Path], list[Path]]


def llama_of(hidden: int, layers: int, vocabulary: int) -> dict[str, object]:
    """Return the config of a Llama with as many key heads as query heads, in bfloat16."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "vocab_size": vocabulary,
        "num_hidden_layers": layers, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64,
        "intermediate_size": hidden * 11 // 4, "tie_word_embeddings": True, "dtype": "bfloat16",
    }  # fmt: skip


def _llama(name: str, count: int, folder: Path) -> list[Path]:
    """Write a Llama and its checkpoints in a process of its own: torch would swell this one."""
    home = folder / "checkpoints" / name
    found = [home / str(seed) for seed in range(count + 1)]
    for seed, target in enumerate(found):
        if not target.is_dir():
            partial = target.with_name(f".{seed}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run([sys.executable, __file__, name, str(seed), partial], check=True)
            partial.rename(target)
    return found


def _towers(folder: Path) -> list[Path]:
    """Write the vision towers of a CLIP ViT-B/32, under names without the prefix that mergekit does not find."""
    made = stream_folders(folder, "b32", 8)
    return without_prefix(made, folder / "checkpoints" / "b32-unprefixed")


SHAPES: Mapping[str, Shape] = {
    "llama-68m": Shape(2, "bfloat16", lambda folder: _llama("llama-68m", 2, folder)),
    "llama-1b": Shape(3, "bfloat16", lambda folder: _llama("llama-1b", 3, folder)),
    "clip-b32": Shape(8, "float32", _towers),
}


def main() -> None:
    """Write one model."""
    import scale

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("llama-68m", "llama-1b"))
    parser.add_argument("seed", type=int)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    config = scale.LLAMA_1B if options.name == "llama-1b" else llama_of(768, 6, 32000)
    scale.write_random(options.target, config, options.seed)
    (options.target / "config.json").write_text(json.dumps(config), encoding="utf-8")


if __name__ == "__main__":
    main()
