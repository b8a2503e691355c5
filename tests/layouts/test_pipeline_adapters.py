"""LoRA adapters in the files of diffusers change a model of a pipeline as diffusers itself does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import AdaptedCheckpoint, open_adapter, open_checkpoint
from hubmerge.errors import CheckpointError
from tests.layouts.sizes import DIFFUSERS

Command = Callable[..., tuple[int, str, str]]
Tensors = dict[str, torch.Tensor]

UNET, SD3 = "UNet2DConditionModel", "SD3Transformer2DModel"
LAYERS = ["to_q", "to_v", "to_out.0", "conv1", "proj_out"]
FILE = "pytorch_lora_weights.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore")


def make(kind: str) -> Any:
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return getattr(diffusers, kind)(**DIFFUSERS[kind]).double()


def adapt(model: Any, **options: Any) -> Tensors:
    """Add an adapter with random factors to a model, and return the factors under their names in peft."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    settings = {"r": 2, "lora_alpha": 6, "target_modules": LAYERS, **options}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model.add_adapter(LoraConfig(**settings))
        for name, value in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(value, std=0.2)
    return dict(get_peft_model_state_dict(model))


def older(names: Mapping[str, torch.Tensor], naming: str) -> Tensors:
    """Return factors under the names of earlier versions of diffusers."""
    found = {}
    for name, value in names.items():
        layer, _, which = name.removesuffix(".weight").rpartition(".")
        which = {"lora_A": "down", "lora_B": "up"}[which]
        last = layer.rpartition(".")[2]
        if naming == "processor" and ".attn1." in name and last in {"to_q", "to_v", "0"}:
            module = layer.removesuffix(".to_out.0").removesuffix(f".{last}")
            kind = {"to_q": "to_q", "to_v": "to_v", "0": "to_out"}[last]
            found[f"{module}.processor.{kind}_lora.{which}.weight"] = value
        else:
            found[f"{layer}.lora.{which}.weight"] = value
    return found


def merged_by_diffusers(kind: str, folder: Path, prefix: str | None, **settings: Any) -> Tensors:
    model = make(kind)
    model.load_lora_adapter(str(folder), prefix=prefix, weight_name=FILE, **settings)
    model.fuse_lora()
    model.unload_lora()
    return dict(model.state_dict())


def check(base: Path, adapter: Path, expected: Tensors) -> AdaptedCheckpoint:
    ours = AdaptedCheckpoint(open_checkpoint(base), open_adapter(adapter))
    for name, value in expected.items():
        torch.testing.assert_close(ours.read(name).double(), value, rtol=0.0, atol=1e-9, msg=name)
    assert len(ours.changed) > 3
    return ours


@pytest.mark.parametrize("kind", [UNET, SD3])
def test_an_adapter_saved_by_one_model(tmp_path: Path, kind: str) -> None:
    model = make(kind)
    model.save_pretrained(tmp_path / "base")
    adapt(model, rank_pattern={"to_q": 3}, alpha_pattern={"to_v": 5})
    model.save_lora_adapter(str(tmp_path / "adapter"))
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter" / FILE, "pt") as opened:
        metadata = json.loads(opened.metadata()["lora_adapter_metadata"])
    expected = merged_by_diffusers(kind, tmp_path / "adapter", None, metadata=metadata)
    check(tmp_path / "base", tmp_path / "adapter", expected)


@pytest.mark.parametrize("with_settings", [True, False])
@pytest.mark.parametrize(("kind", "part"), [(UNET, "unet"), (SD3, "transformer")])
def test_an_adapter_saved_by_a_pipeline(tmp_path: Path, kind: str, part: str, with_settings: bool) -> None:
    from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
    from diffusers.loaders.lora_base import _pack_dict_with_prefix

    model = make(kind)
    model.save_pretrained(tmp_path / "base")
    factors = adapt(model)
    pipeline = StableDiffusionPipeline if part == "unet" else StableDiffusion3Pipeline
    settings = model.peft_config["default"].to_dict() if with_settings else None
    text = {f"text_model.encoder.layers.0.self_attn.q_proj.lora_{one}.weight": torch.ones(2, 2) for one in "AB"}
    pipeline.save_lora_weights(
        tmp_path / "adapter",
        **{f"{part}_lora_layers": factors, "text_encoder_lora_layers": text},
        **({f"{part}_lora_adapter_metadata": settings} if settings else {}),
    )
    packed = None if settings is None else _pack_dict_with_prefix(settings, part)
    expected = merged_by_diffusers(kind, tmp_path / "adapter", part, metadata=packed)
    ours = check(tmp_path / "base", tmp_path / "adapter", expected)
    assert ours.notes == (
        f"{tmp_path / 'adapter'}: its changes of text_encoder are for other models of the pipeline: not merged",
    )


@pytest.mark.parametrize(("naming", "prefix"), [("lora", "unet"), ("processor", None)])
def test_older_names_of_factors(tmp_path: Path, naming: str, prefix: str | None) -> None:
    model = make(UNET)
    model.save_pretrained(tmp_path / "base")
    factors = older(adapt(model), naming)
    (tmp_path / "adapter").mkdir()
    start = f"{prefix}." if prefix else ""
    save_file({f"{start}{name}": value for name, value in factors.items()}, tmp_path / "adapter" / FILE)
    check(tmp_path / "base", tmp_path / "adapter", merged_by_diffusers(UNET, tmp_path / "adapter", prefix))


def test_an_adapter_of_peft_for_a_model_of_diffusers(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = make(UNET)
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS, init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path / "adapter"))
    check(tmp_path / "base", tmp_path / "adapter", dict(adapted.merge_and_unload().state_dict()))


def test_the_changes_of_a_text_encoder(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=20, max_position_embeddings=8)).double()
    model.save_pretrained(tmp_path / "base")
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "out_proj", "fc1", "fc2"]))
    torch.manual_seed(2)
    factors: Tensors = {}
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value)
            plain = name.removeprefix("base_model.model.").replace(".default", "").removeprefix("text_model.")
            factors[plain] = value.detach().clone()
    expected = dict(adapted.merge_and_unload().state_dict())
    for naming in ("peft", "lora_linear_layer"):
        place = tmp_path / naming
        place.mkdir()
        which = {"lora_A": "lora_linear_layer.down", "lora_B": "lora_linear_layer.up"} if naming != "peft" else {}
        named: Tensors = {}
        for key, factor in factors.items():
            for own, other in which.items():
                key = key.replace(own, other)
            named[f"text_encoder.text_model.{key}"] = factor
        named |= {f"unet.mid_block.to_q.lora_{one}.weight": torch.ones(2, 2) for one in "AB"}
        save_file(named, place / FILE)
        ours = AdaptedCheckpoint(open_checkpoint(tmp_path / "base"), open_adapter(place))
        assert len(ours.changed) == 4
        for key, result in expected.items():
            stored = next(one for one in ours.tensors if one.endswith(key.removeprefix("text_model.")))
            torch.testing.assert_close(ours.read(stored).double(), result.double(), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("unet.mid_block.to_q.lora_magnitude_vector", "an adapter of type DoRA, only LoRA can be merged"),
        ("lora_unet_mid_block_to_q.dora_scale", "an adapter of type DoRA"),
        ("mid_block.to_q.lokr_w1", "an adapter of type LoKr"),
        ("mid_block.to_q.hada_w1_a", "an adapter of type LoHa"),
        ("unet.mid_block.to_q.lora_B.bias", "an adapter of type LoRA with biases"),
        ("lora_unet_mid_block_to_q.lora_down.weight", "does not have the name of a LoRA factor in diffusers"),
        ("model.diffusion_model.blocks.0.lora_down.weight", "does not have the name of a LoRA factor in diffusers"),
        ("blocks.0.diff_b", "an adapter of type whole differences"),
        ("unet.mid_block.to_q.alpha", "does not have the name of a LoRA factor in diffusers"),
    ],
)
def test_other_kinds_are_refused_with_the_cause(tmp_path: Path, name: str, cause: str) -> None:
    save_file({name: torch.ones(2, 2)}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=cause) as caught:
        open_adapter(tmp_path)
    assert caught.value.context.tensor == name
    assert "load_lora_weights()" in (caught.value.hint or "")


def test_an_adapter_of_other_trainers_is_merged_after_diffusers_saved_it_again(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    model = make(UNET)
    model.save_pretrained(tmp_path / "base")
    names = {"lora_A": "lora_down", "lora_B": "lora_up"}
    stored: Tensors = {}
    for name, value in adapt(model, target_modules=["to_q", "to_v"]).items():
        layer, _, which = name.removesuffix(".weight").rpartition(".")
        stored |= {f"lora_unet_{layer.replace('.', '_')}.{names[which]}.weight": value}
        stored[f"lora_unet_{layer.replace('.', '_')}.alpha"] = torch.tensor(5.0 if "to_q" in layer else 3.0)
    save_file(stored, tmp_path / FILE)
    with pytest.raises(CheckpointError, match="does not have the name of a LoRA factor") as caught:
        open_adapter(tmp_path)
    assert "pipe.unet.save_lora_adapter(folder)" in (caught.value.hint or "")
    loaded = make(UNET)
    factors, alphas = StableDiffusionPipeline.lora_state_dict(stored)
    StableDiffusionPipeline.load_lora_into_unet(factors, alphas, loaded, adapter_name="style")
    loaded.save_lora_adapter(str(tmp_path / "adapter"), adapter_name="style")
    loaded.fuse_lora()
    loaded.unload_lora()
    check(tmp_path / "base", tmp_path / "adapter", dict(loaded.state_dict()))


def test_an_adapter_for_another_model_is_refused(tmp_path: Path) -> None:
    model = make(UNET)
    model.save_pretrained(tmp_path / "base")
    save_file({f"transformer.blocks.0.to_q.lora_{one}.weight": torch.ones(2, 2) for one in "AB"}, tmp_path / FILE)
    adapter = open_adapter(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"its changes are for transformer of a pipeline, and .* has none of"
    ) as caught:
        AdaptedCheckpoint(open_checkpoint(tmp_path / "base"), adapter)
    assert caught.value.hint == "write the folder of the changed model in front of it: owner/pipeline/unet+owner/lora"


def test_two_models_that_fit_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    model = make(SD3)
    model.save_pretrained(tmp_path / "transformer_2")
    model.save_pretrained(tmp_path / "base")
    factors = adapt(model)
    named = {f"transformer.{name}": value for name, value in factors.items()}
    named |= {f"transformer_2.{name}": 2 * value for name, value in factors.items()}
    (tmp_path / "adapter").mkdir()
    save_file(named, tmp_path / "adapter" / FILE)
    expected = merged_by_diffusers(SD3, tmp_path / "adapter", "transformer_2")
    check(tmp_path / "transformer_2", tmp_path / "adapter", expected)
    with pytest.raises(CheckpointError, match=r"its changes of transformer, transformer_2 fit .* equally well"):
        AdaptedCheckpoint(open_checkpoint(tmp_path / "base"), open_adapter(tmp_path / "adapter"))


@pytest.mark.parametrize("on_hub", [True, False])
def test_a_stream_of_adapters_of_a_pipeline(
    hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], on_hub: bool
) -> None:
    from huggingface_hub import HfApi

    model = make(UNET).float()
    base, adapters = tmp_path / "pipeline" / "unet", [tmp_path / "one", tmp_path / "two"]
    model.save_pretrained(base)
    factors = adapt(model, target_modules=["to_q"])
    for number, adapter in enumerate(adapters, start=1):
        adapter.mkdir()
        save_file({f"unet.{name}": (number * value).float() for name, value in factors.items()}, adapter / FILE)
    names = [str(base), *map(str, adapters)]
    if on_hub:
        names = [repo_name(), repo_name(), repo_name()]
        for repo, folder in zip(names, [base.parent, *adapters], strict=True):
            HfApi().create_repo(repo)
            HfApi().upload_folder(repo_id=repo, folder_path=folder)
        names[0] += "/unet"
    recipe = tmp_path / "recipe.json"
    models = [{"model": f"{names[0]}+{one}", "name": f"lora-{at}"} for at, one in enumerate(names[1:])]
    recipe.write_text(json.dumps({"merge_method": "weight_average", "base_model": names[0], "models": models}))
    status, _, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    status, _, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    before = load_file(base / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "out" / "diffusion_pytorch_model.safetensors")
    for name, value in before.items():
        layer = name.removesuffix(".weight")
        change = torch.zeros_like(value)
        if f"{layer}.lora_A.weight" in factors:
            up, down = (factors[f"{layer}.lora_{one}.weight"].float() for one in "BA")
            change = (1 + 4) / 2 * (up @ down)
        torch.testing.assert_close(after[name], value + change, rtol=1e-5, atol=1e-5)
    models = [{"model": names[1], "name": "one"}]
    recipe.write_text(json.dumps({"merge_method": "weight_average", "base_model": names[0], "models": models}))
    status, _, errors = hubmerge("plan", recipe)
    assert status == 4
    assert f"write: {names[0]}+{names[1]}" in errors
