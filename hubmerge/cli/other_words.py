"""Hints for words of a command line that people bring from other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from hubmerge.support.text import in_shell

_NOT_NEEDED = "leave it out: "

_DEVICE = _NOT_NEEDED + "a GPU is used if torch finds one; ACCELERATE_USE_CPU=1 before the command selects the CPU"
_LAZY = _NOT_NEEDED + "tensors are read one by one, also from pickles"
_TOKENIZER = _NOT_NEEDED + "the tokenizer of the base model is copied; `tokenizer` in the recipe chooses another"
_CACHE = "set HF_HOME before the command: hubmerge uses the cache of every client of the Hub"
_CARD = _NOT_NEEDED + "a published step always has a card"

_OPTIONS = {
    **dict.fromkeys(("--cuda", "--no-cuda", "--device", "--gpu-rich", "--read-to-gpu"), _DEVICE),
    "--multi-gpu": "start one process for each GPU: accelerate launch --multi_gpu -m hubmerge run RECIPE",
    **dict.fromkeys(("--lazy-unpickle", "--lazy-loader", "--clone-tensors", "--low-cpu-memory"), _LAZY),
    **dict.fromkeys(("--copy-tokenizer", "--no-copy-tokenizer"), _TOKENIZER),
    **dict.fromkeys(("--transformers-cache", "--lora-merge-cache"), _CACHE),
    **dict.fromkeys(("--write-model-card", "--no-write-model-card"), _CARD),
    "--out-shard-size": "write it in the recipe: max_shard_size: 5GB",
    "--random-seed": "write it in the recipe: seed: 1",
    "--allow-crimes": "models of other architectures are refused; hubmerge check RECIPE names what differs",
    "--trust-remote-code": _NOT_NEEDED + "weights are read without the code of the repo, which is never run",
}
"""Options of `mergekit-yaml`, and what stands for them here."""

_LETTERS = {"-o": "--out", "-v": "--verbose", "-m": "--method"}
"""Letters that other tools have for options that are written in full here."""

_VERBS = ("merge", "apply", "execute", "start")
"""Words for what `hubmerge run` does."""

_RECIPE_SUFFIXES = {".yaml", ".yml", ".json"}


def hint_for_option(option: str, known: Sequence[str]) -> str | None:
    """Return what stands for an option of `mergekit-yaml` or for a single letter here, or None.

    Args:
        option: the option as it was written.
        known: the options of the command.
    """
    word = option.partition("=")[0]
    if word in _LETTERS:
        return f"write it as {_LETTERS[word]}" if _LETTERS[word] in known else None
    return _OPTIONS.get(word)


def hint_for_command(word: str) -> str | None:
    """Return the command that somebody meant who wrote a recipe or another verb in its place, or None."""
    if PurePath(word).suffix.lower() in _RECIPE_SUFFIXES:
        return f"hubmerge run {in_shell(word)}"
    return "hubmerge run RECIPE" if word in _VERBS else None
