"""Valid recipes: defaults, order, tasks and entries, sizes, notes. Texts that are not recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from hubmerge.stream.catalog import installed_catalog
from merge_recipes import RecipeError, check_recipe, load_recipe, parse_recipe, task_entries
from merge_recipes.schema_types import parse_size
from tests.checks import every
from tests.merge_recipes.samples import CATALOG, RECIPE, load, sample, the_problem

TASK = "      metrics: [accuracy]\n"
ENTRY = "  - model: tanganke/clip-vit-base-patch32_sun397\n"


def test_the_sample() -> None:
    recipe = load().recipe
    assert recipe.merge_method == "projection"
    assert str(recipe.base_model) == "openai/clip-vit-base-patch32"
    assert [entry.name for entry in recipe.stream()] == [
        "clip-vit-base-patch32_sun397",
        "clip-vit-base-patch32_stanford-cars",
    ]
    assert recipe.entries[1].model.revision == "main"
    assert recipe.parameters == {"alpha": 0.5}
    assert (recipe.dtype, recipe.out_dtype) == ("float32", None)
    assert recipe.evaluate is not None
    assert recipe.evaluate.batch_size == 64
    assert recipe.evaluate.tasks[0].prompts == ("a photo of a {}.",)
    assert recipe.publish is not None
    assert recipe.publish.max_shard_bytes == 5_000_000_000
    assert (recipe.fetch, recipe.on_update, recipe.publish.state) == ("cache", "ignore", "last")


def test_signing_is_keyless_or_by_the_file_of_a_key() -> None:
    text = "{merge_method: x, base_model: a/b, models: [{model: c/d}], publish: {repo: me/m%s}}"
    signs = [parse_recipe(text % sign).recipe.publish for sign in ("", ", sign: keyless", ", sign: {key: k/a.pem}")]
    assert signs[0] is not None
    assert signs[0].sign is None
    for publish, written, file in zip(
        signs[1:], ("keyless", {"key": "k/a.pem"}), (None, Path("/r/k/a.pem")), strict=True
    ):
        assert publish is not None
        assert publish.sign is not None
        assert publish.model_dump(mode="json", exclude_defaults=True) == {"repo": "me/m", "sign": written}
        assert publish.sign.key_file(Path("/r")) == file


def test_the_smallest_recipe() -> None:
    recipe = parse_recipe("{merge_method: x, base_model: a/b, models: [{model: c/d}]}").recipe
    assert recipe.parameters == {}
    assert recipe.evaluate is None
    assert recipe.publish is None
    assert recipe.tensors.include == ()


def test_a_recipe_of_mergekit_is_read() -> None:
    text = """
    models:
      - model: a/base
      - model: a/one@v1
        parameters:
          weight: [{filter: self_attn, value: 0.3}, {value: 0.5}]
      - model: ./two+a/lora
    merge_method: x
    base_model: a/none
    parameters:
      normalize: true
      lambda: 1e-1
    dtype: bfloat16
    out_dtype: float16
    """
    recipe = parse_recipe(text).recipe
    assert recipe.parameters == {"normalize": True, "lambda": 0.1}
    assert recipe.entries[1].parameters["weight"] == [{"filter": "self_attn", "value": 0.3}, {"value": 0.5}]


def test_empty_parameters_are_none() -> None:
    assert load(("parameters:\n  alpha: 0.5\n", "parameters:\n")).recipe.parameters == {}


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().recipe.merge_method = "x"  # type: ignore[misc]


def test_a_shuffled_order_is_a_permutation_that_the_seed_fixes() -> None:
    entries = "".join(f"  - model: a/m{index}\n" for index in range(8))
    text = "merge_method: x\nbase_model: a/b\norder: shuffled\nseed: {}\nmodels:\n" + entries
    orders = {seed: [entry.name for entry in parse_recipe(text.format(seed)).recipe.stream()] for seed in range(20)}
    assert every(sorted(order) == [f"m{index}" for index in range(8)] for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) > 15
    # This order never changes: another version must not shuffle a published stream differently.
    assert orders[0] == ["m0", "m3", "m4", "m7", "m1", "m2", "m5", "m6"]


def test_every_place_of_a_shuffled_order_is_reached() -> None:
    text = "merge_method: x\nbase_model: a/b\norder: shuffled\nseed: {}\nmodels: [{{model: a/m0}}, {{model: a/m1}}]"
    firsts = {parse_recipe(text.format(seed)).recipe.stream()[0].name for seed in range(20)}
    assert firsts == {"m0", "m1"}


def test_local_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipes" / "sample.yaml"
    path.parent.mkdir()
    path.write_text(
        sample((ENTRY, "  - model: ../one\n"), ("path: tanganke/sun397", "path: ./data"), ("name: sun397", "name: one"))
    )
    recipe = load_recipe(path, CATALOG).recipe
    assert recipe.entries[0].model.path == str(tmp_path / "one")
    assert recipe.entries[0].name == "one"
    assert recipe.evaluate is not None
    dataset = recipe.evaluate.tasks[0].dataset
    assert (dataset.path, dataset.written_path) == (str(tmp_path / "recipes" / "data"), "./data")


@pytest.mark.parametrize(
    ("names", "task", "entry"),
    [
        (["sun397", "x_sun397"], "sun397", "sun397"),
        (["clip_sun397", "clip_cars"], "sun397", "clip_sun397"),
        (["clip-sun397", "clip_cars"], "sun397", "clip-sun397"),
        (["clipsun397", "clip_cars"], "sun397", None),
        (["a_sun397", "b_sun397"], "sun397", None),
        (["clip_stanford-cars", "clip_dtd"], "stanford-cars", "clip_stanford-cars"),
    ],
)
def test_the_entry_that_a_task_belongs_to(names: list[str], task: str, entry: str | None) -> None:
    models = ", ".join(f"{{model: a/b{index}, name: {name}}}" for index, name in enumerate(names))
    evaluate = f"{{tasks: [{{name: {task}, kind: image-classification, dataset: {{path: a/b}}}}]}}"
    text = f"{{merge_method: projection, base_model: a/b, models: [{models}], evaluate: {evaluate}}}"
    loaded = parse_recipe(text, catalog=CATALOG)
    assert task_entries(loaded.recipe) == {task: entry}
    notes = check_recipe(loaded, CATALOG)
    assert len(notes) == (entry is None)
    assert not [note for note in notes if "scored after every step" not in note]


def test_a_task_may_name_its_entry() -> None:
    loaded = load((TASK, TASK + "      model: clip-vit-base-patch32_stanford-cars\n"))
    assert task_entries(loaded.recipe) == {"sun397": "clip-vit-base-patch32_stanford-cars"}


def test_without_tasks_there_are_no_entries_of_tasks() -> None:
    assert task_entries(parse_recipe("{merge_method: x, base_model: a/b, models: [{model: c/d}]}").recipe) == {}


def test_the_sample_needs_no_note() -> None:
    assert check_recipe(load(), CATALOG) == []


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        ((ENTRY, ENTRY + ENTRY[:-1] + "@main\n    name: again\n"), 5, "it is also in line 4"),
        (("[accuracy]", "[acuracy]"), 15, "did you mean accuracy?"),
        (("alpha: 0.5", "alpha: [{value: 1}, {value: 0.5}]"), 7, "the items after it have no effect"),
        (("name: sun397", "name: other"), 11, "belongs to no entry of the stream"),
    ],
)
def test_notes_on_possible_mistakes(change: tuple[str, str], line: int, message: str) -> None:
    notes = check_recipe(load(change), CATALOG)
    assert len(notes) == 1
    assert notes[0].startswith(f"sample.yaml:{line}:")
    assert message in notes[0]


def test_a_metric_of_no_near_name_is_left_to_the_evaluate_library() -> None:
    assert check_recipe(load(("[accuracy]", "[mean_iou]")), CATALOG) == []


def test_check_recipe_refuses_what_loading_with_a_catalog_refuses() -> None:
    text = sample(("alpha: 0.5", "aplha: 0.5"), ("merge_method: projection", "merge_method: projection"))
    loaded = parse_recipe(text, path="sample.yaml")
    with pytest.raises(RecipeError) as later:
        check_recipe(loaded, CATALOG)
    with pytest.raises(RecipeError) as at_once:
        parse_recipe(text, path="sample.yaml", catalog=CATALOG)
    assert later.value.problems == at_once.value.problems


@pytest.mark.parametrize(
    ("size", "size_bytes"),
    [("5GB", 5 * 10**9), ("512 MiB", 512 * 2**20), ("1.5KB", 1500), ("2TB", 2 * 10**12), ("1KiB", 1024)],
)
def test_sizes(size: str, size_bytes: int) -> None:
    assert parse_size(size) == size_bytes


def test_recipe_text_names_the_file_in_messages() -> None:
    with pytest.raises(RecipeError, match=r"^other\.yaml:1:1: zzz: unknown key"):
        parse_recipe("zzz: 1\n" + RECIPE, path="other.yaml")


REVOKING = """\
merge_method: projection
base_model: me/base
models:
  - {model: me/a}
  - {model: me/b}
"""


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("  - {model: me/a, revoke: c}", 'no earlier entry "c" is merged here'),
        ("  - {model: me/b, revoke: a}", 'the entry "a" has the model me/a'),
        ("  - {model: me/a, revoke: a}\n  - {model: me/a, revoke: a, name: again}", 'no earlier entry "a"'),
        ("  - {model: me/a, revoke: a}\n  - {model: me/b, revoke: b}", "no entry would be left"),
        ("  - {model: me/a, revoke: a, parameters: {alpha: 0.3}}", "with the parameters it was merged with"),
        ("  - {model: me/a, revoke: a}\norder: shuffled\nseed: 1", "a shuffled stream cannot revoke"),
    ],
)
def test_entries_that_cannot_be_revoked(added: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        parse_recipe(REVOKING + added + "\n")


def test_a_revoked_entry_keeps_its_name_and_gets_the_commit_of_its_origin() -> None:
    loaded = parse_recipe(REVOKING + "  - {model: me/a, revoke: a}\n")
    entry = loaded.recipe.entries[-1]
    assert (entry.name, loaded.recipe.revoked_by(entry).name) == ("a-revoked", "a")
    assert check_recipe(loaded, CATALOG) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping with the keys merge_method, base_model, models; the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "got a list"),
        ("opcm", "expected a mapping with the keys"),
        (RECIPE + "---\n" + RECIPE, "a second document has no name"),
        (RECIPE + "? [a, b]\n: 1\n", "expected text as a key, got a list"),
    ],
)
def test_documents_that_are_not_recipes(text: str, message: str) -> None:
    assert message in the_problem(text).message


def test_a_base_model_may_be_listed_where_a_recipe_of_mergekit_lists_it() -> None:
    text = """
        merge_method: ties
        base_model: me/base
        models:
          - model: me/base
          - {model: me/one, parameters: {weight: 0.5, density: 0.5}}
        parameters: {int8_mask: true, normalize: true}
        """
    recipe = parse_recipe(text, catalog=installed_catalog()).recipe
    assert recipe.lists_base
    assert len(recipe.models) == 2
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.replace("ties", "ties\n        form: stream"), catalog=installed_catalog())
    assert [problem.message for problem in caught.value.problems] == ["this is the base model: its task vector is zero"]
