"""Recipes in mergekit's form: its examples and recipes as people publish them, and what each key means here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import hubmerge
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import LayerPositions, LoadedRecipe, RecipeError, TensorParameters, check_recipe, parse_recipe
from merge_recipes.joint_form import joint_form

FOLDER = Path(__file__).parent / "recipes"
FILES = sorted(FOLDER.rglob("*.y*ml"))
REFUSED: dict[str, tuple[int, str]] = {}
"""The recipes that hubmerge refuses, with the line and the reason."""

NAMES = [f"model.layers.{layer}.{part}.weight" for layer in range(4) for part in ("self_attn.q_proj", "mlp.up_proj")]
BASE = "merge_method: {}\nbase_model: me/base\n"
SOURCES = (
    "slices:\n  - sources:\n      - {{model: me/base, layer_range: {}}}\n      - {{model: me/a, layer_range: {}}}\n"
)


def parse(text: str) -> LoadedRecipe:
    return parse_recipe(text, path="r.yaml", catalog=installed_catalog())


def remarks(loaded: LoadedRecipe) -> list[str]:
    return check_recipe(loaded, installed_catalog())


def problems(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(text)
    return str(caught.value)


def parameters(loaded: LoadedRecipe, **changes: Any) -> list[list[Any]]:
    """Return the parameters of each model, or of each source of each slice, at each tensor."""
    catalog, recipe = installed_catalog(), loaded.recipe
    form = joint_form(loaded.document, recipe.merge_method, catalog)
    chosen = catalog.methods[recipe.merge_method] if form is None else form.Parameters
    positions = LayerPositions(NAMES)
    parts = [recipe.of_slice(number) for number in range(len(recipe.slices))] or [recipe]
    found = [
        [TensorParameters(chosen, part, entry, positions)(name) for name in (*NAMES, "lm_head.weight")]
        for part in parts
        for entry in part.entries
        if form is None or form.base == "model" or not part.is_base(entry)
    ]
    return [[{**one.model_dump(), **changes} for one in row] for row in found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_recipe_is_read_or_refused_with_its_line(file: Path) -> None:
    if file.name not in REFUSED:
        assert hubmerge.check(file).checkpoints > 0
        return
    line, reason = REFUSED[file.name]
    with pytest.raises(RecipeError) as caught:
        hubmerge.check(file)
    first = caught.value.problems[0]
    assert (first.line, reason in first.message) == (line, True), first


def test_the_readme_and_the_docs_name_how_many_are_read() -> None:
    published = [file for file in FILES if file.parent.name == "published"]
    examples = [file for file in FILES if file.parent.name == "examples"]
    assert len(published) >= 40
    read = [sum(file.name not in REFUSED for file in files) for files in (published, examples)]
    sentence = (
        f"{read[0]} of {len(published)} recipes in the form that people publish, and {read[1]} of {len(examples)}"
    )
    for page in ("README.md", "docs/mergekit.md"):
        text = (FOLDER.parents[2] / page).read_text(encoding="utf-8")
        assert sentence in " ".join(text.split()), (page, sentence)


@pytest.mark.parametrize("file", [file for file in FILES if file.name not in REFUSED], ids=lambda file: file.name)
def test_the_converted_recipe_means_the_same(file: Path) -> None:
    loaded = hubmerge.load(file)
    text = hubmerge.convert(file)
    again = parse(text)
    assert [one.stage for one in again.stages] == [one.stage for one in loaded.stages]
    for one, other in zip((*again.stages, again), (*loaded.stages, loaded), strict=True):
        assert_equal(one, other)
    if not loaded.stages:
        keys = hubmerge.convert(yaml.safe_load(text)).partition("merge_method")[2]
        assert keys == text.partition("merge_method")[2]


def assert_equal(again: LoadedRecipe, loaded: LoadedRecipe) -> None:
    assert again.recipe.tokenizer_options == loaded.recipe.tokenizer_options
    assert [str(entry.model) for entry in again.recipe.entries] == [str(entry.model) for entry in loaded.recipe.entries]
    for name in ("base_model", "names_base", "dtype", "out_dtype", "merge_method"):
        assert getattr(again.recipe, name) == getattr(loaded.recipe, name), name
    assert parameters(again) == parameters(loaded)


def test_slices_of_whole_models_are_models_and_levels_have_mergekits_precedence() -> None:
    loaded = parse(
        BASE.format("della")
        + """\
parameters: {weight: 0.1, density: 0.2, epsilon: 0.05, lambda: 2.0}
modules:
  default:
    parameters: {density: 0.3, epsilon: [{filter: q_proj, value: 0.01}]}
    slices:
      - sources:
          - {model: me/base, layer_range: [0, 4]}
          - {model: me/a, layer_range: [0, 4], parameters: {weight: [{filter: mlp, value: [0, 0.6]}]}}
          - {model: me/b, layer_range: [0, 4]}
        parameters: {weight: [{filter: self_attn, value: 0.7}], density: 0.4}
"""
    )
    assert (loaded.recipe.first_layers, [entry.name for entry in loaded.recipe.entries]) == (4, ["base", "a", "b"])
    first, second = parameters(loaded)
    assert [one["weight"] for one in first[:4]] == pytest.approx([0.7, 0.0, 0.7, 0.2])
    assert [one["weight"] for one in second[:2]] == [0.7, 0.1]
    assert {one["density"] for one in first} == {0.4}
    assert [one["epsilon"] for one in first[:2]] == [0.01, 0.05]
    assert {one["lambda_"] for one in second} == {2.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SOURCES.format("[0, 24]", "[0, 32]"), "r.yaml:7:36: slices[0].sources[1].layer_range: 32 layers of this"),
        (SOURCES.format("all", "[0, 32]"), "slices[0].sources[0].layer_range: expected a list, got"),
        (SOURCES.format("[0, 4]", "[0, 4]") + "    base_model: me/a\n", "slices[0].base_model: the slice and the"),
        (SOURCES.format("[0, 4]", "[0, 4]") + "    parameter: {}\n", "slices[0].parameter: unknown key"),
        (
            SOURCES.format("[0, 4]", "[0, 4]") + "    parameters: {t: 7, tt: 1}\n",
            "parameters.tt: the method slerp has no",
        ),
        ("slices: 3\n", "slices: expected a list, got the number 3"),
        ("modules: {a: {models: [{model: me/a}], x: 1}}\n", "modules.a.x: unknown key; expected models, slices"),
        ("modules: []\n", "mergekit's modules are read if there is one"),
        ("models: [{model: me/a}]\nslices: []\n", "slices: the list is empty"),
        ("models: [{model: me/a}]\nslices: [{}]\n", "r.yaml:5:9: slices: the recipe has models and slices"),
        ("models: [{model: me/a}]\nstack: layers\n", "stack: this key names the layers that slices cut"),
        (
            "models: [{model: me/a}]\ntokenizer_source: union\ntokenizer: {source: base}\n",
            "r.yaml:5:1: tokenizer_source: tokenizer_source and tokenizer name the tokenizer twice",
        ),
        (
            "models: [{model: me/a}]\ntokenizer_source: 3\n",
            "r.yaml:5:19: tokenizer_source: expected union, base, or a model",
        ),
        (
            "models: [{model: me/a}]\ntokenizer: {tokens: {<x>: {source: me/b}}}\n",
            'r.yaml:5:36: tokenizer.tokens.<x>.source: "me/b" is not a model of this merge',
        ),
        (
            "models: [{model: me/a}]\ntokenizer: {tokens: {x: {source: {kind: model_token, model: me/b, token: t}}}}\n",
            'tokenizer.tokens.x.source.model: "me/b" is not a model of this merge',
        ),
        (
            "models: [{model: me/a}]\ntokenizer: {tokens: {<x>: {source: {kind: model_token, model: me/a}}}}\n",
            "tokenizer.tokens.<x>.source: expected `token` or `token_id`, one of them",
        ),
        (
            "models: [{model: me/a}]\ntokenizer: {tokens: {<x>: {source: {kind: zeros}}}}\n",
            'model: ..., token: ...} or {kind: zero}; got the kind "zeros"',
        ),
        ("models: [{model: me/a}]\ntokenizer: {tokens: {<x>: {forse: true}}}\n", "unknown key; did you mean force?"),
        ("models: [{model: me/a}]\ntokenizer: {pad_to_multiple_of: 0}\n", "expected a number >= 1, got the number 0"),
        ("models: [{model: me/a}]\nchat_template: chatmll\n", "chat_template: "),
        ("models: [{model: me/a, layer_range: [0, 4]}]\n", "models[0].layer_range: mergekit's layer ranges belong"),
        ("models: [{model: me/a}]\nmerge_metod: x\n", "unknown key; did you mean merge_method?"),
    ],
)
def test_what_is_refused_names_the_line_and_the_key_of_the_file(text: str, expected: str) -> None:
    found = problems(BASE.format("slerp") + "parameters: {t: 0.5}\n" + text)
    assert expected in found, found


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("linear", "parameters: {weight: 0}", "the weights 0, 0 sum to zero"),
        ("linear", "form: joint", None),
        (
            "dare_linear",
            "parameters: {weight: [1, 0], normalize: true}",
            "the weights 0, 0 sum to zero in the last layer",
        ),
        (
            "della",
            "parameters: {weight: [{filter: mlp, value: 0}, {value: 1}]}",
            "for tensors with 'mlp' in their name",
        ),
        ("dare_linear", "parameters: {weight: 0, normalize: false}", None),
        ("nuslerp", "parameters: {weight: 0}", "sum to zero"),
        ("multislerp", "parameters: {weight: 0, normalize_weights: false}", None),
    ],
)
def test_weights_that_sum_to_zero_are_refused_where_the_merge_divides_by_them(
    method: str, text: str, expected: str | None
) -> None:
    recipe = BASE.format(method) + f"models: [{{model: me/a}}, {{model: me/b}}]\n{text}\n"
    if expected is None:
        parse(recipe)
    else:
        assert expected in problems(recipe)


def test_opposite_weights_are_refused_for_sums_and_remarked_on_for_elections() -> None:
    models = "models:\n  - {model: me/a, parameters: {weight: 1}}\n  - {model: me/b, parameters: {weight: -1}}\n"
    normalize = "parameters: {normalize: true}\n"
    assert "r.yaml:4:40: models[0].parameters.weight: the weights 1, -1 sum to zero, and" in problems(
        BASE.format("breadcrumbs") + models + normalize
    )
    (remark,) = remarks(parse(BASE.format("dare_ties") + models + normalize))
    assert "a weight is negative: the merge divides by the sum of the weights, 0, signs included" in remark


@pytest.mark.parametrize(
    ("method", "text", "expected"),
    [
        ("slerp", "name: x\nparameters: {t: 0.5}\n", "r.yaml:4:1: name: name has no effect on the merged model"),
        ("slerp", "parameters: {t: 0.5, int8_mask: true}\n", "int8_mask has no effect on the merged model"),
        ("slerp", "parameters: {t: 0.5, weight: 1}\n", "weight has no effect with this method"),
        ("opcm", "tokenizer_source: base\n", "has the tokenizer of me/base"),
        ("opcm", "tokenizer: {source: me/base}\n", "has the tokenizer of me/base"),
        ("ties", "parameters: {density: 0.5}\n", "no weights: mergekit stops here"),
    ],
)
def test_keys_without_effect_are_remarked_on(method: str, text: str, expected: str) -> None:
    (remark,) = remarks(parse(BASE.format(method) + "models: [{model: me/a}]\n" + text))
    assert expected in remark


def test_parameters_of_the_base_model_and_of_the_whole_merge_at_one_model_are_remarked_on() -> None:
    models = "models:\n  - {model: me/base, parameters: {weight: 1}}\n"
    models += "  - {model: me/a, parameters: {weight: 1, normalize: false}}\n"
    first, second = remarks(parse(BASE.format("ties") + models))
    assert "r.yaml:4:22: models[0].parameters: parameters of the base model have no effect" in first
    assert "models[1].parameters.normalize: normalize has no effect at a single model" in second


@pytest.mark.parametrize("method", ["model_stock", "opcm", "task_arithmetic\nform: stream"])
def test_a_base_model_with_an_adapter_is_read_for_all_methods(method: str) -> None:
    text = "base_model: me/base+me/lora\nmodels: [{model: me/a}, {model: me/b}]\n"
    assert str(parse(f"merge_method: {method}\n{text}").recipe.base_model) == "me/base+me/lora"
