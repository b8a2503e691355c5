"""Reading studies: what they mean, and what is refused with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import LoadedStudy, load_study
from hubmerge.study.cells import cells, ordered
from merge_recipes import RecipeError

Write = Callable[..., Path]
CATALOG = installed_catalog()


def loaded(path: Path) -> LoadedStudy:
    return load_study(path, CATALOG)


def test_cells_are_variants_times_sweeps_times_tasks_times_orders(write_study: Write) -> None:
    methods = [
        {"method": "opcm", "parameters": {"alpha": [0.1, 0.9], "diagonal": "keep"}},
        {"method": "weight_average", "name": "mean"},
        {"method": "opcm", "name": "off", "perturb": [7, 8, 9]},
    ]
    study = loaded(write_study(methods=methods, tasks=[2, 4], orders=3, first_seed=5)).study
    found = list(cells(study, 4))
    assert len(found) == (2 + 1 + 3) * (2 + 3)  # two entries have two orders
    assert found[0].parameters == {"diagonal": "keep", "alpha": 0.1}
    assert found[0].label == "opcm, diagonal keep, alpha 0.1"
    assert {cell.seed for cell in found if cell.tasks == 4} == {5, 6, 7}
    assert {cell.perturb for cell in found if cell.series == "off"} == {7, 8, 9}
    assert len({(c.label, c.tasks, c.seed, c.perturb) for c in found}) == len(found)


def test_without_axes_there_is_one_cell_in_the_recipes_own_order(write_study: Write) -> None:
    study = loaded(write_study(methods=[{"method": "opcm"}]))
    [cell] = cells(study.study, 4)
    assert (cell.tasks, cell.seed, cell.label) == (4, None, "opcm")
    names = [entry.name for entry in study.recipe.recipe.stream()]
    assert [entry.name for entry in ordered(study.recipe.recipe, 4, None)] == names
    assert [entry.name for entry in ordered(study.recipe.recipe, 2, None)] == names[:2]


def test_an_order_is_that_of_a_recipe_with_the_same_seed(write_study: Write) -> None:
    recipe = loaded(write_study(methods=[{"method": "opcm"}])).recipe.recipe
    shuffled = recipe.model_copy(update={"order": "shuffled", "seed": 3})
    assert ordered(recipe, 4, 3) == shuffled.stream()
    assert {entry.name for entry in ordered(recipe, 3, 3)} == {entry.name for entry in recipe.stream()[:3]}


def test_a_cell_merges_by_its_own_method_and_publishes_nothing(write_study: Write) -> None:
    study = loaded(write_study(methods=[{"method": "ties", "parameters": {"density": [0.1]}}], orders=1))
    [cell] = cells(study.study, 4)
    recipe = cell.recipe(study.recipe.recipe)
    assert (recipe.merge_method, recipe.parameters, recipe.publish) == ("ties", {"density": 0.1}, None)


def test_filter_lists_are_no_sweeps(write_study: Write) -> None:
    alpha = [{"filter": "mlp", "value": 0.1}, {"value": 0.5}]
    study = loaded(write_study(methods=[{"method": "opcm", "parameters": {"alpha": alpha}}])).study
    [cell] = cells(study, 4)
    assert cell.parameters == {"alpha": alpha}
    assert cell.point == {}


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ({"methods": []}, ["the list is empty"]),
        ({"methods": [{"method": "opcmm"}]}, ["there is no merge method 'opcmm'; did you mean opcm?"]),
        (
            {"methods": [{"method": "opcm", "parameters": {"alfa": 1}}]},
            ["the method opcm has no parameter 'alfa'; did you mean alpha?"],
        ),
        ({"methods": [{"method": "opcm", "parameters": {"alpha": [0.1, 1.5]}}]}, ["expected a number <= 1"]),
        (
            {"methods": [{"method": "opcm", "parameters": {"alpha": [{"filter": "a", "value": 2}]}}]},
            ["expected a number <= 1"],
        ),
        ({"methods": [{"method": "opcm"}], "tasks": [5]}, ["between 1 and 4"]),
        ({"methods": [{"method": "opcm"}, {"method": "opcm"}]}, ["two variants have the name 'opcm'"]),
        ({"methods": [{"method": "opcm"}], "orders": -1, "color": 1}, ["expected a number >= 0", "unknown key"]),
    ],
)
def test_problems_are_reported_with_their_line(write_study: Write, keys: dict[str, Any], messages: list[str]) -> None:
    path = write_study(**keys)
    with pytest.raises(RecipeError) as caught:
        loaded(path)
    for message in messages:
        [problem] = [problem for problem in caught.value.problems if message in problem.message]
        assert problem.line is not None
        assert problem.file == str(path)


def test_a_recipe_in_the_place_of_a_study_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("merge_method: opcm\nbase_model: me/base\nmodels: [{model: me/a}]\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="this is a recipe, not a study") as caught:
        loaded(path)
    assert [one.hint for one in caught.value.problems] == ["write a file with `recipe: ./mine.yaml` and `methods`"]


def test_a_recipe_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("recipe: ./nowhere.yaml\nmethods: [{method: opcm}]\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: the file does not exist"):
        loaded(path)


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[2].glob("benchmarks/study/*.yaml")), ids=lambda p: p.stem
)
def test_the_studies_that_are_shipped_fit(path: Path, write_study: Write) -> None:
    keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    del keys["recipe"]
    keys["tasks"] = [count for count in keys["tasks"] if count <= 4] or [4]
    assert loaded(write_study(**keys)).study.methods


def test_a_recipe_that_revokes_an_entry_is_refused(write_study: Write, recipe_file: Path, tmp_path: Path) -> None:
    keys = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    first = keys["models"][0]
    keys |= {"merge_method": "wudi", "models": [*keys["models"], {"model": first["model"], "revoke": first["name"]}]}
    recipe = tmp_path / "revoking.yaml"
    recipe.write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    with pytest.raises(RecipeError, match="the recipe revokes an entry"):
        loaded(write_study(recipe=str(recipe), methods=[{"method": "wudi"}]))
