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

Tensors = dict[str, torch.Tensor]

UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
SD3 = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 8,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 8,
    "pos_embed_max_size": 8,
}
VAE = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
DIFFUSERS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": UNET,
    "SD3Transformer2DModel": SD3,
    "AutoencoderKL": VAE,
}

TIMM_CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "num_features": 16,
    "global_pool": "token",
    "label_names": ["rose", "tulip", "daisy"],
    "model_args": {"img_size": [32, 32], "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3},
    "pretrained_cfg": {"num_classes": 3, "classifier": "head", "first_conv": "patch_embed.proj"},
}
TIMM_SHAPES = {
    "cls_token": (1, 1, 16),
    "pos_embed": (1, 5, 16),
    "patch_embed.proj.weight": (16, 3, 16, 16),
    "patch_embed.proj.bias": (16,),
    "blocks.0.norm1.weight": (16,),
    "blocks.0.norm1.bias": (16,),
    "blocks.0.attn.qkv.weight": (48, 16),
    "blocks.0.attn.qkv.bias": (48,),
    "blocks.0.attn.proj.weight": (16, 16),
    "blocks.0.attn.proj.bias": (16,),
    "blocks.0.norm2.weight": (16,),
    "blocks.0.norm2.bias": (16,),
    "blocks.0.mlp.fc1.weight": (64, 16),
    "blocks.0.mlp.fc1.bias": (64,),
    "blocks.0.mlp.fc2.weight": (16, 64),
    "blocks.0.mlp.fc2.bias": (16,),
    "norm.weight": (16,),
    "norm.bias": (16,),
    "head.weight": (3, 16),
    "head.bias": (3,),
}
OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
_BLOCK = {
    "ln_1.weight": (16,),
    "ln_1.bias": (16,),
    "attn.in_proj_weight": (48, 16),
    "attn.in_proj_bias": (48,),
    "attn.out_proj.weight": (16, 16),
    "attn.out_proj.bias": (16,),
    "ln_2.weight": (16,),
    "ln_2.bias": (16,),
    "mlp.c_fc.weight": (64, 16),
    "mlp.c_fc.bias": (64,),
    "mlp.c_proj.weight": (16, 64),
    "mlp.c_proj.bias": (16,),
}
OPEN_CLIP_SHAPES: dict[str, tuple[int, ...]] = {
    "positional_embedding": (8, 16),
    "text_projection": (16, 8),
    "logit_scale": (),
    "visual.class_embedding": (16,),
    "visual.positional_embedding": (5, 16),
    "visual.proj": (16, 8),
    "visual.conv1.weight": (16, 3, 8, 8),
    **{f"visual.ln_{place}.{kind}": (16,) for place in ("pre", "post") for kind in ("weight", "bias")},
    **{f"{tower}transformer.resblocks.0.{name}": shape for tower in ("visual.", "") for name, shape in _BLOCK.items()},
    "token_embedding.weight": (20, 16),
    "ln_final.weight": (16,),
    "ln_final.bias": (16,),
}
MISTRAL_PARAMS = {"dim": 16, "n_layers": 1, "head_dim": 8, "hidden_dim": 24, "n_heads": 2, "n_kv_heads": 2}
MISTRAL_SHAPES = {
    "tok_embeddings.weight": (20, 16),
    "layers.0.attention_norm.weight": (16,),
    **{f"layers.0.attention.w{name}.weight": (16, 16) for name in "qkvo"},
    "layers.0.ffn_norm.weight": (16,),
    "layers.0.feed_forward.w1.weight": (24, 16),
    "layers.0.feed_forward.w2.weight": (16, 24),
    "layers.0.feed_forward.w3.weight": (24, 16),
    "norm.weight": (16,),
    "output.weight": (20, 16),
}


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
