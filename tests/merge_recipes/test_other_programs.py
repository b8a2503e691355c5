"""Files that are recipes of other programs, and files that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from merge_recipes import RecipeError, parse_recipe
from merge_recipes.errors import RecipeFileError
from merge_recipes.read_yaml import read_text

MOE = "base_model: me/base\ngate_mode: hidden\nexperts:\n  - source_model: me/chat\n"
EVOLVE = "genome:\n  models: [me/a, me/b]\n  merge_method: dare_ties\ntasks: [{name: x}]\n"
BAKLLAMA = "layer_sources:\n  - {model: me/a, range: [0, 4]}\nembedding_source: me/a\n"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (MOE, "2:1: gate_mode: this is a recipe of mergekit-moe", "mergekit-moe moe.yml OUT"),
        (EVOLVE, "1:1: genome: this is a recipe of mergekit-evolve", "mergekit-evolve moe.yml ..."),
        ("recipe: ./a.yaml\nmethods: [{method: opcm}]\n", "2:1: methods: this is a study", "hubmerge study moe.yml"),
        (BAKLLAMA, "1:1: layer_sources: this is a recipe of bakllama", "write the layers as `slices`"),
    ],
)
def test_a_recipe_of_another_program_is_named_and_nothing_else_is_said(text: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, path="moe.yml")
    assert message in str(caught.value)
    assert [problem.hint for problem in caught.value.problems] == [hint]


def test_with_a_merge_method_the_key_alone_is_wrong() -> None:
    with pytest.raises(RecipeError, match="mixture-of-experts recipes are not supported"):
        parse_recipe(f"merge_method: linear\nmodels: [{{model: me/a}}]\n{MOE}", path="moe.yml")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("recipe.yml", "other.yaml"), r"recipe\.yaml: the file does not exist; did you mean recipe\.yml\?$"),
        (("a.yaml", "b.yml", "c.txt"), r"the file does not exist; its folder has a\.yaml, b\.yml$"),
        (("c.txt",), "the file does not exist$"),
        (tuple(f"{one}.yaml" for one in "pqxyz"), r"its folder has p\.yaml, q\.yaml, x\.yaml, y\.yaml, \.\.\.$"),
    ],
)
def test_a_missing_file_names_those_beside_it(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(RecipeFileError, match=message):
        read_text(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeFileError, match=r"the file does not exist$"):
        read_text(tmp_path / "none" / "recipe.yaml")
