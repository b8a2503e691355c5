"""`hubmerge init` proposes recipes that check, plan and run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, snapshot_download

import hubmerge as library
from hubmerge.cli.main import main
from hubmerge.stream.proposal import proposed_recipe
from tests.cli.terminal import as_terminal
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
    assert status == 2
    assert "--force" in errors
    assert hubmerge("init", stage.base, towers[0], "--out", path, "--method", "opcm", "--force")[0] == 0


def test_a_query_stays_a_query(stage: Stage, tmp_path: Path) -> None:
    owner = next(iter(stage.towers.values())).split("/")[0]
    slug = f"{owner}/things-{'0' * 24}"
    text = proposed_recipe("./base", [f"{owner}/none-*", slug, "./a"], file="x.yaml")
    models = yaml.safe_load(text)["models"]
    assert models == [{"query": f"{owner}/none-*"}, {"collection": slug}, {"model": "./a"}]


def push_card(name: str, card: str) -> str:
    HfApi().create_repo(name)
    HfApi().upload_file(path_or_fileobj=f"---\n{card}\n---\n".encode(), path_in_repo="README.md", repo_id=name)
    return name


def test_cards_of_a_query_and_of_a_collection_are_read(repo_name: Names) -> None:
    base = push_card(repo_name("base"), "pipeline_tag: image-classification")
    stem = repo_name("found")
    models = [push_card(f"{stem}-{name}", f"datasets: [me/{name}]") for name in ("cats", "dogs")]
    api = HfApi()
    slug = api.create_collection("Found", namespace="local").slug
    for model in models:
        api.add_collection_item(slug, model, "model")
    for item, key in ((f"{stem}-*", "query"), (slug, "collection")):
        text = proposed_recipe(base, [item], file="x.yaml")
        assert yaml.safe_load(text)["models"] == [{key: item}]
        assert yaml.safe_load(text)["merge_method"] == "wudi"
        for name in ("cats", "dogs"):
            assert f'path: "me/{name}", split: test, image: image, label: label' in text


def test_the_method_follows_the_cards(repo_name: Names) -> None:
    base = repo_name("base")
    first = push_card(repo_name("one"), f"base_model: {base}\ndatasets: me/same")
    second = push_card(repo_name("two"), f"base_model: {first}\ndatasets: me/other")
    other = push_card(repo_name("three"), f"base_model: {base}\ndatasets: [me/same]")

    def method(*models: str) -> str:
        return str(yaml.safe_load(proposed_recipe(base, models, file="x.yaml"))["merge_method"])

    assert method(first, second) == "magmax"
    assert method(second, first) == "wudi"
    assert method(first, other) == "weight_average"
    assert method(first, second, other) == "wudi"
    assert method(f"{first.partition('-')[0]}-nothing-*") == "wudi"


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_questions_are_asked_on_a_terminal_only(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo_name: Names
) -> None:
    towers, path, target = [*stage.towers.values()][:2], tmp_path / "asked.yaml", repo_name("merged")
    answers = [f" {stage.base} ", f"{towers[0]} ", towers[1], " ", target]
    with as_terminal(100, monkeypatch.setenv) as terminal:
        monkeypatch.setattr(sys, "stdin", Keyboard("".join(f"{answer}\n" for answer in answers)))
        status = main(["init", "--out", str(path)])
    screen = terminal.close()
    assert status == 0, screen.text
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert ([entry["model"] for entry in recipe["models"]], recipe["publish"]["repo"]) == (towers, target)
    assert "base model (owner/name or ./folder): " in screen.text
    assert "publish to (empty: not yet): " in screen.text
    monkeypatch.setattr(sys, "stdin", io.StringIO("never read\n"))
    assert main(["init", "--out", str(path)]) == 2


@pytest.mark.parametrize("answers", ["", "./base\n./one\n"])
def test_the_end_of_the_input_ends_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Keyboard(answers))
    assert main(["init", "--out", str(tmp_path / "asked.yaml")]) == 130
    assert "hubmerge: interrupted" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


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
    assert ".yaml:" not in errors  # no recipe is written
    assert not list(tmp_path.glob("*.yaml"))


@pytest.fixture(scope="module")
def shelf(stage: Stage) -> tuple[str, str]:
    """Return an owner with a base model and models that a search finds, and the base model."""
    owner = "searched"
    base = f"{owner}/tiny-base"
    cards = {
        "tiny-base": "pipeline_tag: image-classification",
        "tiny-tower-one": f"base_model: {base}",
        "other-tower_tiny": f"base_model: {base}",
        "tiny-tower-lora": f"base_model: {base}\nbase_model_relation: adapter",
        "tiny-tower-int4": f"base_model: {base}\nbase_model_relation: quantized",
        "tiny-tower-of-others": "base_model: searched/other-base",
        "tiny-tower-alone": "license: mit",
    }
    for name, card in cards.items():
        push_card(f"{owner}/{name}", card)
    return owner, base


@pytest.mark.parametrize("names_base", [True, False])
def test_a_search_finds_the_checkpoints_of_a_base_model(
    shelf: tuple[str, str], tmp_path: Path, names_base: bool
) -> None:
    owner, base = shelf
    path = tmp_path / "recipe.yaml"
    library.propose(base if names_base else None, search="Tower  tiny searched", out=path)
    text = path.read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    found = [f"{owner}/tiny-tower-one", f"{owner}/other-tower_tiny", f"{base}+{owner}/tiny-tower-lora"]
    assert (recipe["base_model"], [entry["model"] for entry in recipe["models"]]) == (base, found)
    assert "# found by the search for 'Tower tiny searched'; remove what you do not want" in text
    library.propose(base, [found[1]], search="tower tiny one", out=path, force=True)
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [entry["model"] for entry in recipe["models"]] == [found[1], found[0]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--search", "nothing-like-this"), "no model on the Hub has all words of 'nothing-like-this'"),
        (("--search", "tiny tower alone"), "names a base model in its card; found: searched/tiny-tower-alone"),
        (("me/base", "--search", "tiny tower one"), "names me/base as its base model in its card"),
        (("--search", "  "), "the search has no words"),
    ],
)
def test_a_search_without_a_checkpoint_writes_nothing(
    shelf: tuple[str, str],
    hubmerge: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Any,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, errors = hubmerge("init", *words)
    assert (status in (2, 3), expected in errors) == (True, True), errors
    assert not [*tmp_path.iterdir()]


def test_a_proposal_from_a_search_is_planned(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    model, path = repo_name("towerlike"), tmp_path / "recipe.yaml"
    HfApi().create_repo(model)
    HfApi().upload_folder(repo_id=model, folder_path=snapshot_download(next(iter(stage.towers.values()))))
    card = f"---\nbase_model: {stage.base}\n---\n"
    HfApi().upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=model)
    status, output, errors = hubmerge("init", "--search", model.partition("/")[2].replace("-", " "), "--out", path)
    assert status == 0, errors
    assert f"{model} " in output.partition("step  entry")[2]
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["models"] == [{"model": model}]


def test_the_function_of_python(tmp_path: Path) -> None:
    with pytest.raises(library.RecipeError):
        library.propose("./base", ["no such"], out=tmp_path / "x.yaml")
    with pytest.raises(library.UsageError):
        library.propose("./base", out=tmp_path / "x.yaml")
    with pytest.raises(library.MachineError):
        library.propose("./base", ["./a"], out=tmp_path / "missing" / "x.yaml")
