"""Values that mergekit converts: references as mappings, quoted numbers, empty keys, anchors, and names of entries."""

from __future__ import annotations

import pytest

from merge_recipes import RecipeError
from tests.checks import every
from tests.mergekit.test_dialect import BASE, parse, problems, remarks

PAIR = "models: [{model: me/a}, {model: me/b}]\n"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{model: {path: me/a}}", "me/a"),
        ("{model: {path: me/a, revision: v1}, lora: null, override_architecture: null}", "me/a@v1"),
        ("{model: {path: me/a, revision: null}, lora: {path: me/lora, revision: v2}}", "me/a+me/lora@v2"),
        ("{model: me/a@v1, lora: me/lora@v2}", "me/a@v1+me/lora@v2"),
        ("me/a@v1+me/lora@v2", "me/a@v1+me/lora@v2"),
        ("{path: me/a, revision: v1}", "me/a@v1"),
        ("{model: {path: '../runs/lr@3+x'}}", r"../runs/lr\@3\+x"),
    ],
)
def test_references_can_be_mappings(written: str, expected: str) -> None:
    text = (
        f"models: [{{model: {written}, name: one}}, {{model: me/b}}]\ntokenizer_source: {{model: {{path: me/base}}}}\n"
    )
    loaded = parse("merge_method: model_stock\nbase_model: {model: {path: me/base}}\n" + text)
    assert str(loaded.recipe.entries[0].model) == expected
    assert str(loaded.recipe.base_model) == "me/base"
    source = f"{{model: {written}, layer_range: ['0', 2.0]}}"
    sliced = parse(f"merge_method: passthrough\nslices: [{{sources: [{source}], base_model: {written}}}]\n")
    assert [str(sliced.recipe.base_model), str(sliced.recipe.entries[0].model)] == [expected, expected]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{model: {pth: me/a}}", "r.yaml:3:27: models[0].model.model.pth: unknown key; did you mean path?"),
        ("{model: {path: me/a}, lra: me/x}", "models[0].model.lra: unknown key; did you mean lora?"),
        ("{lora: me/a}", "models[0].model.model: this key is required"),
        ("{model: {path: 3}}", "models[0].model.model.path: expected text, got 3"),
        ("{model: {path: me/a, revision: 3}}", "models[0].model.model.revision: expected text, got 3"),
        ("{model: [me/a]}", "models[0].model.model: expected text or {path: ..., revision: ...}"),
        ("{model: me/a, override_architecture: X}", "override_architecture: another class than that of the config"),
    ],
)
def test_mistakes_in_references_name_their_place_once(written: str, expected: str) -> None:
    text = BASE.format("model_stock") + f"models: [{{model: {written}}}, {{model: me/b}}]\n"
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert len(caught.value.problems) == 1
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("method", "written", "expected", "remark"),
    [
        ("dare_linear", 'weight: "0.5"', {"weight": 0.5}, '"0.5" is read as the number 0.5'),
        ("dare_linear", 'weight: " 1e-1 "', {"weight": 0.1}, "is read as the number 0.1"),
        ("dare_linear", 'weight: ["0", 1]', {"weight": [0.0, 1]}, '"0" is read as the number 0'),
        ("dare_linear", "weight: true", {"weight": 1.0}, "true is read as the number 1"),
        (
            "dare_linear",
            'weight: [{filter: mlp, value: ["0.1", 0.2]}, {value: 1}]',
            {"weight": [{"filter": "mlp", "value": [0.1, 0.2]}, {"value": 1}]},
            "parameters.weight[0].value[0]",
        ),
        ("karcher", 'max_iter: "7"', {"max_iter": 7}, '"7" is read as the number 7'),
        ("karcher", "max_iter: 7.0", {"max_iter": 7}, "7.0 is read as the number 7"),
        ("model_stock", 'filter_wise: "yes"', {"filter_wise": True}, '"yes" is read as true'),
        ("model_stock", "filter_wise: 1.0", {"filter_wise": True}, None),
        ("dare_linear", "weight: {value: 0.5, filter: null}", {"weight": [{"value": 0.5}]}, None),
    ],
)
def test_values_are_converted_as_mergekit_converts_them(
    method: str, written: str, expected: dict[str, object], remark: str | None
) -> None:
    loaded = parse(BASE.format(method) + PAIR + f"parameters: {{{written}}}\n")
    assert loaded.recipe.parameters == expected
    assert type(next(iter(loaded.recipe.parameters.values()))) is type(next(iter(expected.values())))
    assert [remark in one for one in remarks(loaded) if remark] == ([True] if remark else [])


@pytest.mark.parametrize(
    ("method", "written", "expected"),
    [
        ("dare_linear", "weight: 012", 'expected a number, got the text "012"'),
        ("dare_linear", "weight: 1:30", 'expected a number, got the text "1:30"'),
        ("dare_linear", 'weight: "half"', 'expected a number, got the text "half"'),
        ("dare_linear", 'weight: "inf"', "expected a number"),
        ("karcher", "max_iter: 7.5", "expected a whole number"),
        ("model_stock", "filter_wise: 2", "expected true or false"),
        ("opcm", 'alpha: "0.5"', "write it without quotes: 0.5"),
    ],
)
def test_other_values_stay_errors(method: str, written: str, expected: str) -> None:
    assert expected in problems(BASE.format(method) + PAIR + f"parameters: {{{written}}}\n")


def test_empty_keys_are_missing_keys_for_methods_of_mergekit_alone() -> None:
    empty = "dtype:\nout_dtype:\ntokenizer:\ntokenizer_source:\nchat_template:\nslices:\nmodules:\nparameters:\n"
    entries = "models: [{model: me/a, parameters: null}, {model: me/b}]\n"
    assert parse("merge_method: karcher\nbase_model:\n" + empty + entries).recipe.names_base is False
    found = problems(BASE.format("opcm") + empty + entries)
    assert every(key in found for key in ("slices", "modules"))


@pytest.mark.parametrize(
    "key",
    [
        *("name", "random_seed", "int8_mask", "normalize", "rescale", "weight", "embed_slerp", "lazy_unpickle"),
        *("allow_crimes", "device", "out_shard_size", "write_model_card", "lora_merge_dtype", "num_threads"),
    ],
)
def test_top_level_keys_that_mergekit_ignores_are_remarked_on(key: str) -> None:
    (remark,) = remarks(parse(BASE.format("model_stock") + PAIR + f"{key}: 1\n"))
    assert f"r.yaml:4:1: {key}: {key} has no effect" in remark


def test_keys_that_hold_anchors_are_remarked_on_and_other_unknown_keys_are_errors() -> None:
    anchors = ".own: &own {weight: 0.5}\ncommon:\n  low: &low {weight: 0.1}\n"
    models = "models:\n  - {model: me/a, parameters: *own}\n  - {model: me/b, parameters: {<<: *low, density: 0.5}}\n"
    loaded = parse(anchors + BASE.format("dare_ties") + models)
    assert [entry.parameters for entry in loaded.recipe.entries] == [{"weight": 0.5}, {"weight": 0.1, "density": 0.5}]
    assert ["but to hold values that other keys repeat" in remark for remark in remarks(loaded)] == [True, True]
    unused = BASE.format("model_stock") + PAIR + "commn: &x {weight: 1}\nparamters: {}\n"
    assert "r.yaml:4:1: commn: unknown key" in problems(unused)
    assert "r.yaml:5:1: paramters: unknown key; did you mean parameters?" in problems(unused)


def test_models_of_one_name_get_names_of_their_own_in_recipes_of_mergekit() -> None:
    references = ["one/m", "two/m", "one/m+me/l", "one/m+me/k@v1", "'./my runs/m'", "one/m@v2", "'./my m'", "me/base"]
    models = "models: [" + ", ".join(f"{{model: {reference}}}" for reference in references) + "]\n"
    names = [entry.name for entry in parse(BASE.format("model_stock") + models).recipe.entries]
    assert names == ["m", "two-m", "m-l", "m-k", "m-2", "one-m", "my-m", "base"]
    assert "is taken by the entry" in problems(BASE.format("opcm") + models)
    twice = "models: [{model: me/a}, {model: me/a}]\n"
    assert "is taken by the entry" in problems(BASE.format("model_stock") + twice)
