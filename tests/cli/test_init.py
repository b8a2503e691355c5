"""`hubmerge init` proposes recipes that check, plan and run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

import hubmerge as library
from hubmerge.stream.proposal import proposed_recipe
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]


def test_a_proposed_recipe_is_planned_and_runs(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    path, towers = tmp_path / "mine.yaml", list(stage.towers.values())
    target = repo_name("merged")
    status, output, errors = hubmerge("init", stage.base, *towers, "--out", path, "--publish", target)
    assert status == 0, errors
    assert "next: read" in output
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (recipe["merge_method"], recipe["base_model"]) == ("wudi", stage.base)
    assert [entry["model"] for entry in recipe["models"]] == towers
    assert recipe["publish"] == {"repo": target}
    status, output, errors = hubmerge("run", path)
    assert status == 0, errors
    status, _, errors = hubmerge("init", stage.base, *towers, "--out", path)
    assert status == 5
    assert "--force" in errors
    assert hubmerge("init", stage.base, towers[0], "--out", path, "--method", "opcm", "--force")[0] == 0


def test_a_query_stays_a_query(stage: Stage, tmp_path: Path) -> None:
    owner = next(iter(stage.towers.values())).split("/")[0]
    slug = f"{owner}/things-{'0' * 24}"
    text = proposed_recipe("./base", [f"{owner}/none-*", slug, "./a"], file="x.yaml")
    models = yaml.safe_load(text)["models"]
    assert models == [{"query": f"{owner}/none-*"}, {"collection": slug}, {"model": "./a"}]


def test_seeds_of_one_task_are_averaged() -> None:
    text = proposed_recipe("./base", ["./sst2-seed1", "./sst2-seed2", "./sst2-seed10"], file="x.yaml")
    assert yaml.safe_load(text)["merge_method"] == "weight_average"
    text = proposed_recipe("./base", ["./sst2-seed1", "./cola-seed2"], file="x.yaml")
    assert yaml.safe_load(text)["merge_method"] == "wudi"


def test_data_sets_of_the_cards_become_tasks_in_comments(repo_name: Names) -> None:
    base, model = repo_name("base"), repo_name("cats")
    for name, card in ((base, "pipeline_tag: text-classification"), (model, "datasets: [me/cats]")):
        HfApi().create_repo(name)
        HfApi().upload_file(path_or_fileobj=f"---\n{card}\n---\n".encode(), path_in_repo="README.md", repo_id=name)
    text = proposed_recipe(base, [model, "local/never-made"], file="x.yaml")
    assert '#       dataset: {path: "me/cats", split: test, text: text, label: label}' in text
    assert "evaluate" not in yaml.safe_load(text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "base model"),
        (("a/b",), "at least one checkpoint"),
        (("a/b", "no such"), "no such"),
        (("a/b", "c/d", "--method", "opcn"), "opcm"),
        (("a/b", "c/d", "--publish", "no/such/repo"), "repo"),
        (("a", "b", "--github"), "one recipe"),
    ],
)
def test_mistakes_write_nothing(
    hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = hubmerge("init", *arguments)
    assert status == 2
    assert expected in errors
    assert not list(tmp_path.glob("*.yaml"))


def test_the_function_of_python(tmp_path: Path) -> None:
    with pytest.raises(library.RecipeError):
        library.propose("./base", ["no such"], out=tmp_path / "x.yaml")
    with pytest.raises(library.MachineError):
        library.propose("./base", ["./a"], out=tmp_path / "missing" / "x.yaml")
