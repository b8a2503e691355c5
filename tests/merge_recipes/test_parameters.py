"""The value of a parameter for a tensor: precedence of entry, recipe and default, and filter lists."""

from __future__ import annotations

import pytest

from merge_recipes import LayerPositions, RecipeError, TensorParameters, parameters_for, parse_recipe, recipe_digest
from tests.merge_recipes.samples import Projection, Scaled, load, sample

ENTRY = "  - model: tanganke/clip-vit-base-patch32_sun397\n"
TOP = "  alpha: 0.5\n"
FILTERS = "[{filter: attn, value: 0.9}, {filter: q_proj, value: 0.8}, {filter: '*', value: 0.7}]"


def test_the_entry_overrides_the_top_level_and_the_default() -> None:
    recipe = load((ENTRY, ENTRY + "    parameters: {alpha: 0.25}\n"), (TOP, TOP + "  rank_rule: fusion_bench\n")).recipe
    first, second = recipe.entries
    assert parameters_for(Projection, recipe, first, "x") == Projection(alpha=0.25, rank_rule="fusion_bench")
    assert parameters_for(Projection, recipe, second, "x") == Projection(alpha=0.5, rank_rule="fusion_bench")
    bare = load((TOP, "  {}\n")).recipe
    assert parameters_for(Projection, bare, bare.entries[0], "x") == Projection()


def test_the_first_filter_that_is_in_the_name_is_used() -> None:
    recipe = load((TOP, f"  alpha: {FILTERS}\n")).recipe
    at = TensorParameters(Projection, recipe, recipe.entries[0])
    assert [at(name).alpha for name in ("self_attn.q_proj.weight", "x.q_proj.weight", "mlp.fc1.weight")] == [
        0.9,
        0.8,
        0.7,
    ]


def test_without_a_matching_filter_the_next_level_is_used() -> None:
    recipe = load((ENTRY, ENTRY + "    parameters: {alpha: [{filter: attn, value: 0.1}]}\n")).recipe
    at = TensorParameters(Projection, recipe, recipe.entries[0])
    assert (at("attn.weight").alpha, at("mlp.weight").alpha) == (0.1, 0.5)
    bare = load((TOP, "  alpha: [{filter: attn, value: 0.1}]\n")).recipe
    assert parameters_for(Projection, bare, bare.entries[0], "mlp.weight").alpha == Projection().alpha


def test_parameters_of_the_whole_merge() -> None:
    recipe = load((ENTRY, ENTRY + "    parameters: {alpha: 0.25}\n"), (TOP, f"  alpha: {FILTERS}\n")).recipe
    assert parameters_for(Projection, recipe).alpha == 0.7


def test_an_alias_is_the_name_in_a_recipe() -> None:
    text = sample(("projection", "scaled"), ("alpha: 0.5", "lambda: 2"))
    recipe = parse_recipe(text).recipe
    assert parameters_for(Scaled, recipe, recipe.entries[0], "x").scale_factor == 2.0


def test_tensors_with_equal_values_share_one_instance() -> None:
    recipe = load((TOP, f"  alpha: {FILTERS}\n")).recipe
    at = TensorParameters(Projection, recipe, recipe.entries[0])
    assert at("0.attn.weight") is at("1.attn.weight")
    assert at("0.attn.weight") is not at("0.mlp.weight")


@pytest.mark.parametrize("value", ["7", '"0.5"', "[{value: true}]"])
def test_values_of_an_unchecked_recipe_are_refused_when_used(value: str) -> None:
    recipe = parse_recipe(sample(("alpha: 0.5", f"alpha: {value}"))).recipe
    with pytest.raises(RecipeError, match=r"^parameters\.alpha: .*, for tensor x\.weight$"):
        parameters_for(Projection, recipe, recipe.entries[0], "x.weight")


LAYERS = [f"{stack}.layers.{number}.w" for stack, count in (("text", 5), ("vision", 3)) for number in range(count)]


def test_a_gradient_is_spread_over_the_layers_of_each_stack() -> None:
    recipe = load((TOP, "  alpha: [0, 0.5, 1]\n")).recipe
    at = TensorParameters(Projection, recipe, None, LayerPositions([*LAYERS, "one.layers.0.w", "lm_head.weight"]))
    assert [at(name).alpha for name in LAYERS] == [0, 0.25, 0.5, 0.75, 1, 0, 0.5, 1]
    assert (at("lm_head.weight").alpha, at("one.layers.0.w").alpha) == (0, 1)


def test_a_gradient_in_a_filter_list_of_an_entry_has_the_precedence_of_its_level() -> None:
    own = "    parameters: {alpha: [{filter: .w, value: [0.2, 0.4]}, {filter: q, value: 0.9}]}\n"
    recipe = load((ENTRY, ENTRY + own), (TOP, "  alpha: [{filter: '*', value: [1, 0]}]\n")).recipe
    at = TensorParameters(Projection, recipe, recipe.entries[0], LayerPositions(LAYERS))
    names = ["text.layers.2.w", "text.layers.4.q", "text.layers.4.v", "vision.layers.2.w"]
    assert [at(name).alpha for name in names] == pytest.approx([0.3, 0.9, 0.0, 0.4])


def test_a_gradient_without_positions_is_refused_and_the_whole_merge_has_its_first_value() -> None:
    recipe = load((TOP, "  alpha: [0.25, 1]\n")).recipe
    assert parameters_for(Projection, recipe).alpha == 0.25
    with pytest.raises(ValueError, match="positions are needed"):
        parameters_for(Projection, recipe, None, "x.weight")


@pytest.mark.parametrize(
    ("form", "diagonal", "rank_rule"),
    [("paper", "remove", "paper"), ("released", "keep", "fusion_bench"), ("stable", "keep", "paper")],
)
def test_a_form_of_opcm_is_the_parameters_that_it_stands_for(form: str, diagonal: str, rank_rule: str) -> None:
    text = "merge_method: opcm\nbase_model: me/base\nmodels: [{model: me/a}]\nparameters: "
    short = parse_recipe(f"{text}{{form: {form}, alpha: 0.4}}\n").recipe
    long = parse_recipe(f"{text}{{alpha: 0.4, diagonal: {diagonal}, rank_rule: {rank_rule}}}\n").recipe
    assert short == long
    assert recipe_digest(short) == recipe_digest(long)
    other = parse_recipe(f"{text}{{form: {form}}}\n".replace("opcm", "magmax")).recipe
    assert other.parameters == {"form": form}
