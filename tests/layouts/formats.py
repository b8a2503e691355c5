"""File formats of the libraries that people save models with: how each is written, and how the library loads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.families import make
from tests.layouts.sizes import (
    DIFFUSERS,
    MISTRAL_PARAMS,
    MISTRAL_SHAPES,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_SHAPES,
    TIMM_CONFIG,
    TIMM_SHAPES,
)

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Format:
    """One way in which people save a model.

    Attributes:
        library: the library.
        model: the class, or the kind of model.
        read: the weight files, as `save` writes them.
        written: the weight files of the merged model.
        save: a function that saves the model with this seed into a folder.
        load: a function that loads the merged model with its library, if that library can be imported here.
        recipe: keys of the recipe.
        library_name: the library in the card.
    """

    library: str
    model: str
    read: tuple[str, ...]
    written: tuple[str, ...]
    save: Callable[[Path, int], None]
    load: Callable[[Path], Tensors] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    library_name: str | None = None

    @property
    def label(self) -> str:
        """The name of the test."""
        return f"{self.library}-{self.model}-{self.read[0]}"

    def recipe_for(self, repo: str) -> dict[str, Any]:
        """Return the keys of the recipe, with this target repo if a key needs one."""
        if "publish" not in self.recipe:
            return dict(self.recipe)
        return {**self.recipe, "publish": {**self.recipe["publish"], "repo": repo}}


def values(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Tensors:
    """Return the tensors of the base model (seed 0), or of a checkpoint that differs from them a little."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    generator.manual_seed(seed)
    if not seed:
        return tensors
    return {name: value + 0.02 * torch.randn(value.shape, generator=generator) for name, value in tensors.items()}


def by_hand(
    shapes: Mapping[str, tuple[int, ...]],
    config: tuple[str, Mapping[str, Any]],
    file: str,
    metadata: Mapping[str, str] | None = None,
) -> Callable[[Path, int], None]:
    """Return a function that saves a model with these shapes in one file, with a config beside it."""

    def save(folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        (folder / config[0]).write_text(json.dumps(config[1], indent=4))
        if file.endswith(".safetensors"):
            save_file(values(shapes, seed), folder / file, None if metadata is None else dict(metadata))
        else:
            torch.save(values(shapes, seed), folder / file)

    return save


def in_shards(*files: str, index: str | None) -> Callable[[Path, int], None]:
    """Return a function that spreads a model of Mistral over files."""

    def save(folder: Path, seed: int) -> None:
        folder.mkdir(parents=True)
        (folder / "params.json").write_text(json.dumps(MISTRAL_PARAMS))
        tensors = values(MISTRAL_SHAPES, seed)
        places = {name: files[number % len(files)] for number, name in enumerate(tensors)}
        for file in files:
            save_file({name: tensors[name] for name, place in places.items() if place == file}, folder / file)
        if index is not None:
            (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return save


@cache
def _diffusers_model(name: str, seed: int) -> Any:
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(diffusers, name)(**DIFFUSERS[name])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters() if seed else ():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def with_diffusers(name: str, **options: Any) -> Callable[[Path, int], None]:
    """Return a function that saves a model of diffusers."""
    return lambda folder, seed: _diffusers_model(name, seed).save_pretrained(folder, **options)


def load_diffusers(name: str, **options: Any) -> Callable[[Path], Tensors]:
    """Return a function that loads a model of diffusers."""

    def load(folder: Path) -> Tensors:
        import diffusers

        return dict(getattr(diffusers, name).from_pretrained(folder, **options).state_dict())

    return load


def with_transformers(**options: Any) -> Callable[[Path, int], None]:
    """Return a function that saves a variant of a model of transformers."""

    def save(folder: Path, seed: int) -> None:
        model = make("Qwen2ForCausalLM")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters() if seed else ():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder, **options)

    return save


def load_transformers(folder: Path) -> Tensors:
    """Load the variant fp16 of a model of transformers."""
    import transformers

    model = transformers.Qwen2ForCausalLM.from_pretrained(folder, variant="fp16")
    return {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


def load_all(folder: Path) -> Tensors:
    """Load the original files of Mistral, as the code in the card does."""
    return {name: value for file in folder.glob("consolidated*.safetensors") for name, value in load_file(file).items()}


def numbered(start: str, count: int) -> tuple[str, ...]:
    """Return the names of shards."""
    return tuple(f"{start}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1))


def _formats_of_diffusers() -> list[Format]:
    unet, sd3, file = "UNet2DConditionModel", "SD3Transformer2DModel", "diffusion_pytorch_model"
    shards, of_variant = numbered(file, 4), numbered(f"{file}.fp16", 4)
    single, sharded = (f"{file}.safetensors",), {"publish": {"max_shard_size": "20KB"}}

    def one(
        model: str, read: tuple[str, ...], written: tuple[str, ...], recipe: Mapping[str, Any] | None = None, **how: Any
    ) -> Format:
        loaded = {"variant": "fp16"} if any("fp16" in name for name in written) else {}
        load = load_diffusers(model, **loaded)
        return Format("diffusers", model, read, written, with_diffusers(model, **how), load, recipe or {}, "diffusers")

    return [
        one(unet, single, single),
        one("AutoencoderKL", single, single),
        one(sd3, single, single),
        one(sd3, shards, shards, sharded, max_shard_size="20KB"),
        one(unet, (f"{file}.bin",), single, safe_serialization=False),
        one(unet, (f"{file}.fp16.safetensors",), (f"{file}.fp16.safetensors",), variant="fp16"),
        one(sd3, of_variant, of_variant, sharded, variant="fp16", max_shard_size="20KB"),
        one(unet, (f"{file}.fp16.safetensors",), single, {"out_dtype": "float64"}, variant="fp16"),
    ]


def _formats_of_mistral() -> list[Format]:
    params = ("params.json", MISTRAL_PARAMS)
    single, shards = ("consolidated.safetensors",), numbered("consolidated", 2)
    index = f"{single[0]}.index.json"
    limit = {"publish": {"max_shard_size": "8KB"}}
    return [
        Format("Mistral", "consolidated", single, single, by_hand(MISTRAL_SHAPES, params, *single), load_all),
        Format("Mistral", "consolidated", shards, shards, in_shards(*shards, index=index), load_all, limit),
        Format("Mistral", "without index", shards, shards, in_shards(*shards, index=None), load_all, limit),
        Format(
            "Llama",
            "original",
            ("consolidated.00.pth",),
            single,
            by_hand(MISTRAL_SHAPES, params, "consolidated.00.pth"),
            load_all,
        ),
    ]


def _formats_of_transformers() -> list[Format]:
    single, shards = ("model.fp16.safetensors",), numbered("model.fp16", 2)
    limit = {"publish": {"max_shard_size": "8KB"}}
    return [
        Format("transformers", "variant", files, files, with_transformers(**options), load_transformers, recipe, name)
        for name in ("transformers",)
        for files, options, recipe in (
            (single, {"variant": "fp16"}, {}),
            (shards, {"variant": "fp16", "max_shard_size": "8KB"}, limit),
        )
    ]


def _formats_of_vision() -> list[Format]:
    timm, open_clip = ("config.json", TIMM_CONFIG), ("open_clip_config.json", OPEN_CLIP_CONFIG)
    formats = []
    for library, model, shapes, config, file in (
        ("timm", "ViT", TIMM_SHAPES, timm, "model.safetensors"),
        ("timm", "ViT", TIMM_SHAPES, timm, "pytorch_model.bin"),
        ("open_clip", "CLIP", OPEN_CLIP_SHAPES, open_clip, "open_clip_model.safetensors"),
        ("open_clip", "CLIP", OPEN_CLIP_SHAPES, open_clip, "open_clip_pytorch_model.bin"),
    ):
        written = "model.safetensors" if library == "timm" else "open_clip_model.safetensors"
        save = by_hand(shapes, config, file, {"format": "pt", "made_by": "somebody"} if library != "timm" else None)
        recipe = {"publish": {"max_shard_size": "4KB"}}  # neither library reads shards
        formats.append(Format(library, model, (file,), (written,), save, None, recipe, library))
    return formats


FORMATS = [*_formats_of_diffusers(), *_formats_of_vision(), *_formats_of_mistral(), *_formats_of_transformers()]
