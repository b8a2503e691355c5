"""`hubmerge check` and `hubmerge convert` on recipes of mergekit."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import hubmerge
from hubmerge.cli.main import main
from tests.mergekit.test_dialect import BASE, SOURCES


def test_a_folder_of_recipes_is_checked_with_a_table_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    recipe = BASE.format("slerp") + "models: [{model: me/a}]\nparameters: {t: 1}\n"
    (tmp_path / "in" / "a.yml").write_text(recipe, encoding="utf-8")
    for lock in ("b.lock.yaml", "in/lock.yaml"):
        (tmp_path / lock).write_text("version: 1\n", encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 0
    (tmp_path / "b.yaml").write_text(recipe.replace("model: me/a", "model: 3"), encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines()[2:] == [
        "b.yaml    line 3: models[0].model: expected text, got the number 3",
        "in/a.yml  OK: slerp, 1 checkpoint",
        "1 of 2 recipes valid",
    ]
    (tmp_path / "b.yaml").write_text(recipe.replace("model: me/a", "model: 3") + "x: 1\n", encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines()[-1] == "hubmerge check FILE lists all problems of a recipe"
    assert main(["check", str(tmp_path), "--json"]) == 2
    assert '{"event": "summary", "recipes": 2, "valid": 1}' in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    with pytest.raises(hubmerge.UsageError, match="no recipe in"):
        hubmerge.check_folder(tmp_path / "none")


def test_convert_prints_what_a_recipe_leaves_unsaid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = (
        BASE.format("dare_ties") + SOURCES.format("[0, 4]", "[0, 4]") + "parameters: {weight: 0.5}\ndtype: bfloat16\n"
    )
    recipe.write_text(text, encoding="utf-8")
    assert main(["convert", str(recipe)]) == 0
    comments, _, keys = capsys.readouterr().out.partition("merge_method")
    assert comments.splitlines() == [
        "# order: 2 models are merged at once",
        "# base model: me/base; task vectors start from it",
        "# layers: the first 4 layers of every model; `hubmerge plan` checks the number",
        "# tokenizer, chat template and config: copied from me/base; none is built",
        "# dtype: weights are read rounded to bfloat16 before the arithmetic; the merged model is written in bfloat16",
    ]
    assert yaml.safe_load("merge_method" + keys) == {
        "merge_method": "dare_ties",
        "base_model": "me/base",
        "slices": [{"sources": [{"model": name, "layer_range": [0, 4]} for name in ("me/base", "me/a")]}],
        "parameters": {"weight": 0.5, "normalize": False, "lambda": 1.0, "density": 1.0, "rescale": True},
        "dtype": "bfloat16",
        "seed": 0,
    }
    recipe.write_text(
        BASE.format("slerp") + SOURCES.format("[0, 4]", "[0, 4]") + "parameters: {t: 0.5}\n", encoding="utf-8"
    )
    assert main(["convert", str(recipe)]) == 0
    assert "# base model: me/base; the merge starts from it" in capsys.readouterr().out.splitlines()


def test_a_repo_with_the_name_of_a_folder_is_remarked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("in/me/a", "here/lora", "here/words", "in/m/folder"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    recipe = tmp_path / "in" / "a.yml"
    recipe.write_text(
        "merge_method: dare_linear\nbase_model: me/base\nparameters: {weight: 1}\ntokenizer_source: words\n"
        "models: [{model: me/a}, {model: me/b+lora}, {model: ./me/a, name: c}, {model: m/x/folder}]\n",
        encoding="utf-8",
    )
    assert main(["check", str(recipe)]) == 0
    errors = "".join(capsys.readouterr())
    sentence = '"{}" is a repo on the Hub here; mergekit takes the folder of that name {}'.format
    for name, where, hint in (
        ("me/a", "beside the recipe", "./me/a"),
        ("lora", "in the working folder", "../here/lora"),
        ("words", "in the working folder", "../here/words"),
    ):
        assert sentence(name, where) in errors
        assert f"write {hint} for the folder" in errors
    assert errors.count("mergekit takes the folder") == 3
