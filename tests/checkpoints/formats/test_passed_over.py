"""The choice among several formats of one model, which is that of the library, and the files that are not read."""

from __future__ import annotations

import pytest

from hubmerge.checkpoints.formats.layout import choose_weights
from hubmerge.checkpoints.formats.passed_over import passed_over

MODEL, PICKLE, INDEX = "model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
DIFFUSERS = "diffusion_pytorch_model"
DIFFUSERS_SHARDS = [f"{DIFFUSERS}-00001-of-00002.safetensors", f"{DIFFUSERS}-00002-of-00002.safetensors"]
OPEN_CLIP = ["open_clip_config.json", "open_clip_model.safetensors"]

CHOICES: dict[str, tuple[list[str], str]] = {
    "safetensors and pickle": ([PICKLE, MODEL], MODEL),
    "shards and pickle": ([PICKLE, INDEX], INDEX),
    "one file and shards": ([MODEL, INDEX], MODEL),
    "two indexes": (["pytorch_model.bin.index.json", INDEX], INDEX),
    "variant and pickle": (["model.fp16.safetensors", PICKLE], PICKLE),
    "transformers and Mistral": (["config.json", "params.json", "consolidated.safetensors", INDEX], INDEX),
    "Mistral alone": (["params.json", "consolidated.safetensors"], "consolidated.safetensors"),
    "transformers and open_clip": (["config.json", PICKLE, *OPEN_CLIP], PICKLE),
    "config of open_clip": ([PICKLE, *OPEN_CLIP], OPEN_CLIP[1]),
    "one file and shards of diffusers": (
        [f"{DIFFUSERS}.safetensors", f"{DIFFUSERS}.safetensors.index.json"],
        f"{DIFFUSERS}.safetensors.index.json",
    ),
    "pickled shards of diffusers": (
        [f"{DIFFUSERS}.safetensors", f"{DIFFUSERS}.bin.index.json"],
        f"{DIFFUSERS}.safetensors",
    ),
    "a model and its adapter": (["adapter_config.json", "adapter_model.safetensors", MODEL], MODEL),
    "other formats": ([PICKLE, "tf_model.h5", "flax_model.msgpack", "model.onnx", "q4.gguf"], PICKLE),
}

REASONS: dict[str, tuple[list[str], list[str], dict[str, str]]] = {
    "nothing": ([MODEL, "config.json", "training_args.bin", "optimizer.pt", "rng_state_0.pth"], [MODEL], {}),
    "pickle": ([MODEL, PICKLE], [MODEL], {PICKLE: "safetensors are read first"}),
    "shards": ([MODEL, INDEX, *SHARDS], [MODEL], {"model-*-of-00002.safetensors": "one file is read before shards"}),
    "another shard": (
        [INDEX, *SHARDS, "model-00003-of-00003.safetensors"],
        SHARDS,
        {"model-*-of-00003.safetensors": "not in the index"},
    ),
    "one file of diffusers": (
        ["config.json", f"{DIFFUSERS}.safetensors", f"{DIFFUSERS}.safetensors.index.json", *DIFFUSERS_SHARDS],
        DIFFUSERS_SHARDS,
        {f"{DIFFUSERS}.safetensors": "not in the index"},
    ),
    "variant": (
        [MODEL, "model.fp16.safetensors"],
        [MODEL],
        {"model.fp16.safetensors": "files without a variant are read"},
    ),
    "another variant": (
        ["model.fp16.safetensors", "model.bf16.safetensors"],
        ["model.fp16.safetensors"],
        {"model.bf16.safetensors": "the variant fp16 is read"},
    ),
    "adapter": (
        [MODEL, "adapter_model.safetensors"],
        [MODEL],
        {"adapter_model.safetensors": "an adapter beside a whole model"},
    ),
    "other libraries": (
        [MODEL, "tf_model.h5", "consolidated.00.pth", "open_clip_pytorch_model.bin"],
        [MODEL],
        {
            "tf_model.h5": "a format that is not read",
            "consolidated.00.pth": "transformers files are read",
            "open_clip_pytorch_model.bin": "transformers files are read",
        },
    ),
    "other name": ([MODEL, "lora.safetensors"], [MODEL], {"lora.safetensors": "not a name of weights"}),
    "folders": (
        [MODEL, "onnx/model.onnx", f"unet/{DIFFUSERS}.safetensors", "checkpoint-9/pytorch_model.bin", "docs/x.txt"],
        [MODEL],
        {
            "onnx/": "a folder",
            "unet/": "a folder: append /unet to read it",
            "checkpoint-9/": "a folder: append /checkpoint-9 to read it",
        },
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_choice_is_that_of_the_library(name: str) -> None:
    names, expected = CHOICES[name]
    chosen = choose_weights(names)
    assert chosen is not None
    assert expected in {chosen.single, chosen.index}
    assert choose_weights(names[::-1]) == chosen


@pytest.mark.parametrize("name", REASONS)
def test_files_that_are_not_read_have_a_reason(name: str) -> None:
    names, read, expected = REASONS[name]
    chosen = choose_weights(names)
    assert chosen is not None
    assert {one.name: one.reason for one in passed_over(names, read, chosen.names)} == expected
