"""Recipes with slices on tiny language models: against a literal oracle, and beside mergekit where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hubmerge
from merge_recipes import RecipeError
from tests.checks import every
from tests.mergekit.sliced_models import CUT, MERGED, STACKED, Tensors, merged, models, written

__all__ = ["models"]  # fixtures

Merge = Callable[[Sequence[torch.Tensor], float, str], torch.Tensor]


def tensors(models: Path, name: str) -> Tensors:
    name, _, adapter = name.partition("+")
    found = load_file(models / name / "model.safetensors")
    if adapter:
        change = {
            key.split(".")[-2]: one for key, one in load_file(models / adapter / "adapter_model.safetensors").items()
        }
        found["model.layers.3.self_attn.q_proj.weight"] += 2 * change["lora_B"] @ change["lora_A"]
    return found


Slice = tuple[tuple[tuple[str, int], ...], int, Merge]
"""Sources, each with its first layer; the number of layers; the merge of a tensor, given its position and name."""


def stacked(models: Path, slices: Sequence[Slice]) -> Tensors:
    """Return a stacked model by a literal reading of the rules."""
    found: Tensors = {}
    names = tensors(models, "a")
    suffixes = [key.removeprefix("model.layers.0.") for key in names if key.startswith("model.layers.0.")]
    target = 0
    for sources, length, merge in slices:
        opened = [(tensors(models, name), first) for name, first in sources]
        for index in range(length):
            position = index / (length - 1) if length > 1 else 1.0
            for suffix in suffixes:
                values = [one[f"model.layers.{first + index}.{suffix}"] for one, first in opened]
                found[f"model.layers.{target}.{suffix}"] = merge(values, position, suffix)
            target += 1
    for key, (sources, _, merge) in {
        "model.embed_tokens.weight": slices[0],
        "model.norm.weight": slices[-1],
        "lm_head.weight": slices[-1],
    }.items():
        found[key] = merge([tensors(models, name)[key] for name, _ in sources], 0.0, key)
    return found


def copy_of(values: Sequence[torch.Tensor], _position: float, _name: str) -> torch.Tensor:
    return values[0]


def test_layers_of_several_models_are_stacked_with_scales_and_an_adapter(models: Path, tmp_path: Path) -> None:
    def scaled(values: Sequence[torch.Tensor], _position: float, name: str) -> torch.Tensor:
        return values[0] * 0.5 if "down_proj" in name else values[0]

    expected = stacked(
        models,
        [((("a", 0),), 3, copy_of), ((("b+adapter", 2),), 2, scaled), ((("deep", 5),), 1, copy_of)],
    )
    found = merged(models, tmp_path, STACKED)
    assert set(found) == set(expected)
    assert {value.dtype for value in found.values()} == {torch.float32}
    for name, value in found.items():
        exact = "layers.4.self_attn.q_proj" not in name
        assert torch.equal(value, expected[name]) if exact else torch.allclose(value, expected[name], atol=1e-6), name
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] == 6
    report = json.loads((out / "hubmerge.json").read_text(encoding="utf-8"))
    assert [[row["first"], row["last"]] for row in report["steps"][0]["layers"]] == [[0, 2], [3, 4], [5, 5]]
    assert report["steps"][0]["layers"][1]["sources"] == [{"name": "b", "first": 2, "last": 3}]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "This model has 6 layers, stacked from 3 models" in card
    assert "| 3 to 4 | `b` 2 to 3 |" in card


def test_each_slice_merges_its_sources_with_its_parameters_and_gradients(models: Path, tmp_path: Path) -> None:
    def first(values: Sequence[torch.Tensor], t: float, name: str) -> torch.Tensor:
        base, one, other = values
        return base + 0.9 * ((t if "mlp" in name else 0.25) * (one - base) + (0.2 + 0.4 * t) * (other - base))

    def last(values: Sequence[torch.Tensor], t: float, _name: str) -> torch.Tensor:
        other, base = values
        return base + 0.9 * (0.5 + 0.25 * t) * (other - base)

    slices: list[Slice] = [
        ((("base", 0), ("a", 1), ("deep", 3)), 3, first),
        ((("deep", 4), ("base", 3)), 1, last),
    ]
    found, expected = merged(models, tmp_path, MERGED), stacked(models, slices)
    assert set(found) == set(expected)
    assert max(float((value - expected[name]).abs().max()) for name, value in found.items()) < 1e-6
    again = tmp_path / "again"
    again.mkdir()
    converted = hubmerge.convert(written(models, again, MERGED))
    assert every(torch.equal(value, found[name]) for name, value in merged(models, again, converted).items())


def test_a_single_slice_of_the_first_layers_cuts_the_models(models: Path, tmp_path: Path) -> None:
    found = merged(models, tmp_path, CUT)
    assert {int(name.split(".")[2]) for name in found if ".layers." in name} == {0, 1}
    base, deep = tensors(models, "base"), tensors(models, "deep")
    assert every(torch.allclose(found[name], base[name], atol=1e-6) for name in found if ".layers.0." in name)
    assert every(torch.allclose(found[name], deep[name], atol=1e-6) for name in found if ".layers.1." in name)


def test_kept_tensors_are_those_of_the_origin_of_each_slice(models: Path, tmp_path: Path) -> None:
    found = merged(models, tmp_path, MERGED + "tensors: {exclude: ['*.mlp.*']}\n")
    base = tensors(models, "base")
    places = {0: 0, 1: 1, 2: 2, 3: 3}
    for layer, own in places.items():
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(found[name.format(layer)], base[name.format(own)])


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("DIR/deep, layer_range: [5, 6]", "DIR/deep, layer_range: [5, 7]", 8, "deep has 6 layers: expected a range"),
        ("DIR/a, layer_range: [0, 3]", "DIR/a, layer_range: [3, 3]", 3, "the range [3, 3] is empty"),
        ("DIR/deep, layer_range: [5, 6]", "DIR/wide, layer_range: [3, 4]", None, "its layers have another width"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_its_line(
    models: Path, tmp_path: Path, old: str, new: str, line: int | None, expected: str
) -> None:
    recipe = written(
        models, tmp_path, STACKED.replace(old, new).replace("[5, 6]", "[3, 4]" if "wide" in new else "[5, 6]")
    )
    with pytest.raises(hubmerge.HubmergeError) as caught:
        hubmerge.plan(recipe, progress=None)
    assert expected in str(caught.value)
    if isinstance(caught.value, RecipeError):
        assert caught.value.problems[0].line == line
    else:
        assert line is None


def test_a_fold_does_not_cut_layers(models: Path, tmp_path: Path) -> None:
    text = "merge_method: opcm\nbase_model: DIR/base\nslices:\n  - sources: [{model: DIR/a, layer_range: [0, 2]}]\n"
    with pytest.raises(RecipeError, match="layers 0 to 2 are not all layers of the models, which have 4") as caught:
        hubmerge.plan(written(models, tmp_path, text), progress=None)
    assert (caught.value.problems[0].line, caught.value.problems[0].key) == (4, "slices[0].sources[0].layer_range")
    with pytest.raises(RecipeError, match="layers are stacked in one step"):
        hubmerge.check(written(models, tmp_path, text + "  - sources: [{model: DIR/b, layer_range: [0, 2]}]\n"))


def test_the_plan_shows_the_layers(models: Path, tmp_path: Path) -> None:
    plan = hubmerge.plan(written(models, tmp_path, MERGED), progress=None)
    assert "layers   0 to 2: base 0 to 2, a 1 to 3, deep 3 to 5" in str(plan)
    assert "         3 to 3: deep 4 to 4, base 3 to 3" in str(plan)


def test_layers_of_bfloat16_are_copied_bit_by_bit(models: Path, tmp_path: Path) -> None:
    own = tmp_path / "half"
    own.mkdir()
    (own / "config.json").write_bytes((models / "a" / "config.json").read_bytes())
    half = {name: value.to(torch.bfloat16) for name, value in tensors(models, "a").items()}
    save_file(half, own / "model.safetensors", metadata={"format": "pt"})
    slices = "".join(f"  - sources: [{{model: {own}, layer_range: [{layer}, {layer + 1}]}}]\n" for layer in (2, 0, 2))
    found = merged(models, tmp_path, f"merge_method: passthrough\nslices:\n{slices}")
    for target, layer in enumerate((2, 0, 2)):
        names = [name for name in found if f".layers.{target}." in name]
        assert names
        for name in names:
            own_name = name.replace(f".layers.{target}.", f".layers.{layer}.")
            assert torch.equal(found[name].view(torch.int16), half[own_name].view(torch.int16))
