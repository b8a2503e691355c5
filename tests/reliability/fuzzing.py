"""Recipes and checkpoints with random damage, generated from seeds."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

RECIPE = """\
merge_method: opcm
base_model: ./base
models:
  - model: ./tower
    name: first
    parameters: {alpha: [{filter: attn, value: 0.7}, {value: 0.5}]}
  - {model: owner/name@v2+owner/adapter}
  - {model: owner/another/folder, name: third}
parameters: {alpha: 0.5}
dtype: float32
out_dtype: bfloat16
order: shuffled
seed: 3
tensors: {include: ["vision_model.*"], exclude: ["*bias"]}
evaluate:
  batch_size: 8
  tasks:
    - name: shapes
      kind: zero-shot-image-classification
      model: first
      dataset: {path: owner/data, name: plain, split: test, image: image, label: label, max_examples: 8}
      prompts: ["a photo of a {}."]
      class_names: [circle, square]
      metrics: [accuracy, f1]
publish: {repo: me/merged, steps: every, private: true, license: mit, tags: [a], max_shard_size: 1GB}
"""
GROWING = (
    RECIPE.replace("order: shuffled\nseed: 3\n", "on_update: append\n")
    .replace("{model: owner/another/folder, name: third}", "{query: somebody/clip-*, tags: [x]}")
    .replace("alpha: 0.5", "alpha: &a 0.5")
)
PIECES: list[str] = [
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "!!python/name:os ",
    "? ",
]
PIECES += [
    "|",
    ">",
    "'",
    '"',
    "\\",
    "\t",
    "\0",
    "\ufeff",
    "\r",
    "\u2028",
    "%TAG ! x\n---\n",
    "@",
    "+",
    "~",
    "null",
    "no",
]
PIECES += ["1e999", "---\n", "...", "[]", "{}", "[{}]", "{value: 1}", "-1", "9" * 30, "0x", "2024-01-31", "é", ".nan"]
PIECES += ["😀", "{}{}", "../x", "[[1], {a: b}]", "{filter: [a], value: {}}", "a/b", "./x", "/etc/passwd", "a/b@@c"]
PIECES += ["a+b+c", "💥" * 50, "x" * 5000]
VALUES: list[Any] = [None, True, -1, 0, 3, 2**31, 2**63, -(2**70), 1e308, "", "x", "../../x", "\ud800", [], [[]], {}]
VALUES += [{"a": {}}, [1, 2], ["F32"], "F64", "BOOL", "clip", "bert", [-1, 5], [2**31, 2**31], "😀", "\0", 0.5, [None]]


def recipe(chance: random.Random) -> bytes:
    """Return a recipe damaged in one to four places: characters, lines or values."""
    text = chance.choice([RECIPE, GROWING])
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        way = chance.randrange(4)
        if way == 0:
            start = chance.randrange(len(text) + 1)
            end = min(len(text), start + chance.choice([0, 0, 1, 5, 40]))
            text = text[:start] + chance.choice(PIECES) + text[end:]
        else:
            lines = text.split("\n")
            index = chance.randrange(len(lines))
            key, colon, _ = lines[index].partition(": ")
            if way == 1:
                lines[index] = key + (colon or " ") + chance.choice(PIECES)
            elif way == 2:
                lines.pop(index)
            else:
                lines.insert(chance.randrange(len(lines)), lines[index])
            text = "\n".join(lines)
    content = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.1:
        content = damaged_bytes(chance, content)
    return content


def damaged_bytes(chance: random.Random, content: bytes) -> bytes:
    """Return bytes with some changed, removed, repeated or truncated."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        place = chance.randrange(len(changed) + 1)
        way = chance.randrange(5)
        if way == 0 and place < len(changed):
            changed[place] = chance.randrange(256)
        elif way == 1:
            del changed[place : place + chance.choice([1, 8, 100])]
        elif way == 2:
            changed[place:place] = changed[place : place + chance.choice([1, 8, 100])]
        elif way == 3 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif way == 4 and chance.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def damaged_json(chance: random.Random, value: Any) -> Any:
    """Return a JSON value with one inner value replaced, removed or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        changed = dict(value)
        key = chance.choice(list(changed))
        way = chance.randrange(8)
        if way == 0:
            changed.pop(key)
        elif way == 1:
            changed[str(chance.choice(VALUES))] = changed.pop(key)
        else:
            changed[key] = damaged_json(chance, changed[key])
        return changed
    if isinstance(value, list) and value and chance.random() < 0.6:
        index = chance.randrange(len(value))
        return [*value[:index], damaged_json(chance, value[index]), *value[index + 1 :]]
    if isinstance(value, int) and chance.random() < 0.4:
        return value + chance.choice([-1, 1, 7, 2**20, -(2**20), 2**40])
    return chance.choice(VALUES)


def damaged_header(chance: random.Random, content: bytes) -> bytes:
    """Return a safetensors file with a damaged header whose length is still correct."""
    end = 8 + int.from_bytes(content[:8], "little")
    text = json.dumps(damaged_json(chance, json.loads(content[8:end]))).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]


class Checkpoints:
    """Small valid checkpoints in several formats, and damaged copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kinds = dict(self._make())

    def _make(self) -> Iterator[tuple[str, Path]]:
        import transformers
        from safetensors.torch import load_file

        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "projection_dim": 8}
        sizes |= {"num_hidden_layers": 1, "image_size": 8, "patch_size": 4}
        config = transformers.CLIPVisionConfig(**sizes)
        for name, seed in (("base", 0), ("whole", 1)):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                transformers.CLIPVisionModel(config).save_pretrained(self.folder / name)
        whole = self.folder / "whole"
        yield "whole", whole
        transformers.CLIPVisionModel.from_pretrained(whole).save_pretrained(
            self.folder / "shards", max_shard_size="8KB"
        )
        yield "shards", self.folder / "shards"
        tensors = load_file(whole / "model.safetensors")
        for name, zipped in (("zip", True), ("old pickle", False)):
            shutil.copytree(whole, self.folder / name)
            (self.folder / name / "model.safetensors").unlink()
            stored = io.BytesIO()
            torch.save(tensors, stored, _use_new_zipfile_serialization=zipped)
            (self.folder / name / "pytorch_model.bin").write_bytes(stored.getvalue())
            yield name, self.folder / name

    @property
    def base(self) -> Path:
        """A valid base model."""
        return self.folder / "base"

    def damage(self, chance: random.Random, into: Path) -> str:
        """Write a damaged copy of a checkpoint into a folder, and return its format and the damaged file."""
        kind = chance.choice(list(self.kinds))
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(self.kinds[kind], into)
        files = sorted(path for path in into.iterdir() if path.name not in {"generation_config.json"})
        path = chance.choice(files)
        ways: list[Callable[[bytes], bytes]] = [lambda content: damaged_bytes(chance, content)]
        if path.suffix == ".json":
            ways.append(lambda content: json.dumps(damaged_json(chance, json.loads(content))).encode())
        if path.suffix == ".safetensors":
            ways.append(lambda content: damaged_header(chance, content))
        if chance.random() < 0.05:
            path.write_bytes(chance.choice([b"", b"{}", b"null", b"\x80\x05.", b"version https://git-lfs", bytes(100)]))
        elif chance.random() < 0.05:
            path.rename(path.with_name(chance.choice(files).name))
        else:
            path.write_bytes(chance.choice(ways)(path.read_bytes()))
        return f"{kind}: {path.name}"


def fuzz(name: str, count: int, seed: int, one: Callable[[random.Random], tuple[int, str]]) -> dict[str, int]:
    """Call `one` `count` times, each with its own random generator, and count the exit statuses.

    Raises:
        AssertionError: An output contains a traceback, or a status stands for an internal error.
    """
    endings: Counter[str] = Counter()
    for number in range(count):
        status, text = one(random.Random(f"{name} {seed} {number}"))
        bad = "Traceback" in text or "internal error" in text or status not in {0, 2, 4}
        assert not bad, f"{name} {number} of seed {seed} ended with {status}: {text[-2000:]}"
        endings[f"exit status {status}"] += 1
    return dict(sorted(endings.items()))


def make_folders(folder: Path) -> None:
    """Create the local folders that the recipes name."""
    for name in ("base", "tower"):
        (folder / name).mkdir(parents=True, exist_ok=True)


def fuzz_recipes(count: int, seed: int, folder: Path, command: Callable[..., tuple[int, str]]) -> dict[str, int]:
    """Run `hubmerge check` on damaged recipes."""
    make_folders(folder)

    def one(chance: random.Random) -> tuple[int, str]:
        path = folder / "recipe.yaml"
        path.write_bytes(recipe(chance))
        return command("check", path, "--quiet")

    return fuzz("recipe", count, seed, one)


def fuzz_checkpoints(count: int, seed: int, folder: Path, command: Callable[..., tuple[int, str]]) -> dict[str, int]:
    """Run `hubmerge run` on damaged checkpoints, as base model or entry, each with an empty work folder."""
    checkpoints = Checkpoints(folder / "whole ones")

    def one(chance: random.Random) -> tuple[int, str]:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        checkpoints.damage(chance, folder / "damaged")
        base, models = checkpoints.base, [checkpoints.kinds["whole"], folder / "damaged"]
        if chance.random() < 0.3:
            base, models = models[1], models[:1]
        text = {"merge_method": "opcm", "base_model": str(base), "models": [{"model": str(path)} for path in models]}
        (folder / "recipe.yaml").write_text(json.dumps(text))
        return command("run", folder / "recipe.yaml", "--quiet", "--work-dir", work)

    return fuzz("checkpoint", count, seed, one)
