"""Files with several documents: named stages whose merged models later documents use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import hubmerge
from merge_recipes import RecipeError
from tests.checks import every
from tests.mergekit.oracle import MERGEKIT, check_equal, needs_mergekit
from tests.mergekit.test_dialect import parse, problems, remarks
from tests.mergekit.test_runs import models, tensors

__all__ = ["models"]

STAGE = "---\nname: {}\nmerge_method: linear\nmodels: [{{model: {}}}, {{model: {}}}]\n"

TWO = """\
name: first
merge_method: slerp
base_model: DIR/base
models: [{model: DIR/a}]
parameters: {t: 0.25}
---
name: second
merge_method: task_arithmetic
base_model: first
models:
  - {model: DIR/b, parameters: {weight: 0.5}}
  - {model: first+DIR/adapter, parameters: {weight: 1.0}}
---
merge_method: linear
models:
  - {model: second, parameters: {weight: 0.75}}
  - {model: first, parameters: {weight: 0.25}}
"""


def written(models: Path, folder: Path, text: str = TWO) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(text.replace("DIR", str(models)), encoding="utf-8")
    return recipe


def run(recipe: Path) -> dict[str, torch.Tensor]:
    folder = recipe.parent
    hubmerge.run(recipe, out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.parametrize(
    ("text", "stages", "models_"),
    [
        (STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "a", "me/y"), ["a"], ["stage:a", "me/y"]),
        (STAGE.format("b", "a+me/lora@v1", "me/y") + STAGE.format("a", "me/x", "me/y"), ["a"], None),
        (STAGE.format("a b", "me/x", "me/y") + STAGE.format("c", "a b", "me/y") + "---\n", ["a-b"], None),
        (
            STAGE.format("c", "b", "a") + STAGE.format("b", "a", "gpt2") + STAGE.format("a", "me/x", "me/y"),
            ["a", "b"],
            ["stage:b", "stage:a"],
        ),
    ],
)
def test_documents_are_merged_before_those_that_use_them(
    text: str, stages: list[str], models_: list[str] | None
) -> None:
    loaded = parse(text)
    assert [stage.stage for stage in loaded.stages] == stages
    if models_ is not None:
        assert [str(entry.model) for entry in loaded.recipe.entries] == models_


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            STAGE.format("a", "b", "me/y") + STAGE.format("b", "a", "me/y"),
            "r.yaml:4:18: models[0].model: the documents use",
        ),
        (STAGE.format("a", "a", "me/y") + STAGE.format("b", "a", "me/y"), '"a" uses "a"'),
        (STAGE.format("a", "me/x", "me/y") + STAGE.format("a", "a", "me/y"), "r.yaml:6:7: name: the name"),
        (STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "ab", "me/y"), "no document with the name"),
        (STAGE.format("me/z", "me/x", "me/y") + STAGE.format("b", "me/z", "me/y"), "is also that of a repo on the Hub"),
        (STAGE.format("gpt2", "me/x", "me/y") + STAGE.format("b", "gpt2", "me/y"), "is also that of a repo on the Hub"),
        (STAGE.format("./a", "me/x", "me/y") + STAGE.format("b", "./a", "me/y"), "reads as a folder"),
        (STAGE.format("a+b", "me/x", "me/y") + STAGE.format("b", "me/x", "me/y"), "cannot be part of a reference"),
        (STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "me/x", "me/y"), "expected one result"),
        (STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "a@main", "me/y"), "has no revision"),
        (
            STAGE.format("a", "me/x", "me/y").replace("name: a\n", "")
            + STAGE.format("b", "me/x", "me/y").replace("name: b\n", ""),
            "a second document has no name",
        ),
        (
            STAGE.format("a", "me/x", "me/y") + "publish: {repo: me/z}\n" + STAGE.format("b", "a", "me/y"),
            "r.yaml:5:1: publish: publish belongs to the document of the result",
        ),
        (
            STAGE.format("a", "me/x", "me/y").replace("model: me/x", "modle: me/x") + STAGE.format("b", "a", "3"),
            "unknown key; did you mean model?",
        ),
    ],
)
def test_mistakes_in_documents_name_their_line(text: str, expected: str) -> None:
    assert expected in problems(text)


def test_a_reference_to_a_stage_in_a_file_of_one_document_is_refused() -> None:
    assert "the file has no document with the name a" in problems(STAGE.format("b", "stage:a", "me/y")[4:])


def test_a_name_is_not_that_of_a_folder_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    recipe = written(tmp_path, tmp_path, STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "a", "me/y"))
    with pytest.raises(RecipeError, match="is also that of a folder beside the recipe"):
        hubmerge.load(recipe)


def test_a_document_that_the_result_does_not_need_is_remarked_on() -> None:
    unnamed = STAGE.format("c", "a", "me/y").replace("name: c\n", "")
    loaded = parse(STAGE.format("a", "me/x", "me/y") + STAGE.format("b", "me/x", "me/y") + unnamed)
    (remark,) = remarks(loaded)
    assert "r.yaml:6:7: name: the result does not use this document: it is not merged" in remark


def expected(models: Path) -> dict[str, torch.Tensor]:
    """Return the result of `TWO`, merged document by document with recipes of one document."""
    base, other, adapted = tensors(models, "base"), tensors(models, "b"), tensors(models, "base", adapted=True)
    slerp = hubmerge.merge_state_dicts(
        base, [tensors(models, "a")], method="slerp", parameters={"t": 0.25}, recipe={"form": "joint"}
    )
    found = {}
    for name, value in base.items():
        change = adapted[name] - value
        second = slerp[name] + 0.5 * (other[name] - slerp[name]) + change
        found[name] = 0.75 * second + 0.25 * slerp[name]
    return found


def test_stages_are_merged_in_order_and_reported_once(models: Path, tmp_path: Path) -> None:
    recipe = written(models, tmp_path)
    result = run(recipe)
    for name, value in expected(models).items():
        assert torch.allclose(result[name], value, atol=1e-5), name
    out = tmp_path / "out"
    report = json.loads((out / "hubmerge.json").read_text(encoding="utf-8"))
    assert report["version"] == 4
    assert [(stage["name"], stage["merge_method"], len(stage["models"])) for stage in report["stages"]] == [
        ("first", "slerp", 1),
        ("second", "task_arithmetic", 2),
    ]
    digests = {f"stage:{stage['name']}": stage["digest"] for stage in report["stages"]}
    assert {one["reference"]: one["commit"] for one in report["steps"][0]["inputs"]} == {
        name: digests[name] for name in ("stage:second", "stage:first")
    }
    lock = yaml.safe_load((out / "hubmerge.lock.yaml").read_text(encoding="utf-8"))
    assert (lock["version"], [stage["name"] for stage in lock["stages"]]) == (2, ["first", "second"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "## Stages" in card
    statement = json.loads((out / "hubmerge.intoto.json").read_text(encoding="utf-8"))
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [one["annotations"].get("stage") for one in inputs].count("second") == 4
    assert set(statement["predicate"]["buildDefinition"]["externalParameters"]["recipe"]["stages"]) == {
        "first",
        "second",
    }


def test_merged_stages_are_used_again_and_damaged_or_changed_ones_merged_again(models: Path, tmp_path: Path) -> None:
    recipe = written(models, tmp_path)
    first = run(recipe)
    (home,) = (tmp_path / "work").glob("*/stages")
    folders = {path.parents[1].name.rpartition("-")[0]: path for path in home.glob("*/step-*/model.safetensors")}
    times = {name: path.stat().st_mtime_ns for name, path in folders.items()}
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("0.75", "0.5"), encoding="utf-8")
    second = run(recipe)
    assert {name: path.stat().st_mtime_ns for name, path in folders.items()} == times
    assert any(not torch.equal(first[name], second[name]) for name in first)
    save_file({"x": torch.zeros(1)}, folders["second"])
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace(
            "weight: 0.5}}\n  - {model: first,", "weight: 0.75}}\n  - {model: first,"
        ),
        encoding="utf-8",
    )
    third = run(recipe)
    assert every(torch.equal(first[name], third[name]) for name in first)
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("t: 0.25", "t: 0.5"), encoding="utf-8")
    fourth = run(recipe)
    assert any(not torch.equal(first[name], fourth[name]) for name in first)
    assert not set(home.iterdir()) & {path.parents[1] for path in folders.values()}


def test_a_plan_of_stages_reads_headers_alone(models: Path, tmp_path: Path) -> None:
    recipe = written(models, tmp_path)
    plan = hubmerge.plan(recipe, progress=None)
    assert [stage["name"] for stage in plan.data["stages"]] == ["first", "second"]
    assert plan.text.splitlines()[0].startswith("stage first (")
    assert not (tmp_path / "work").exists()
    assert [step.reference for step in plan.steps] == ["stage:first"]


def test_a_lock_of_stages_pins_their_models(models: Path, tmp_path: Path) -> None:
    recipe = written(models, tmp_path)
    lock = hubmerge.lock(recipe, progress=None).lock
    assert [len(stage.models) for stage in lock.stages] == [1, 2]
    hubmerge.run(recipe, out=tmp_path / "out", work_dir=tmp_path / "work", locked=True, progress=None).finish()
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("t: 0.25", "t: 0.5"), encoding="utf-8")
    with pytest.raises(RecipeError, match="another recipe"):
        hubmerge.run(recipe, out=tmp_path / "out", work_dir=tmp_path / "work", locked=True, progress=None).finish()


def test_convert_prints_all_documents(models: Path, tmp_path: Path) -> None:
    recipe = written(models, tmp_path)
    text = hubmerge.convert(recipe)
    documents = [*yaml.safe_load_all(text)]
    assert [document.get("name") for document in documents] == ["first", "second", None]
    (tmp_path / "converted.yaml").write_text(text, encoding="utf-8")
    assert str(hubmerge.check(tmp_path / "converted.yaml")) == "OK: 2 stages, then linear, 2 checkpoints"
    assert hubmerge.convert(tmp_path / "converted.yaml") == text


@pytest.mark.parametrize("change", [None, "weights", "lock"])
def test_verify_merges_all_stages_again(models: Path, tmp_path: Path, change: str | None) -> None:
    run(written(models, tmp_path))
    if change == "weights":
        path = tmp_path / "out" / "model.safetensors"
        save_file({name: value + 0.5 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    if change == "lock":
        path = tmp_path / "out" / "hubmerge.lock.yaml"
        text = path.read_text(encoding="utf-8")
        digest = yaml.safe_load(text)["stages"][1]["digest"]
        path.write_text(text.replace(digest, "sha256:" + "0" * 64), encoding="utf-8")
    verdict = hubmerge.verify(str(tmp_path / "out"), work_dir=tmp_path / "verify", progress=None)
    texts = [f"{finding.subject} {finding.verdict} {finding.detail}" for finding in verdict.findings]
    differing = [text for text, one in zip(texts, verdict.findings, strict=True) if one.verdict == "differs"]
    assert bool(differing) == (change is not None), differing
    if change is None:
        assert any("2 stages have the weights in the report" in text for text in texts), texts
    if change == "lock":
        assert any("the digest of stage second does not follow from recipe and lock" in text for text in texts), texts


@pytest.mark.slow
@needs_mergekit
def test_stages_give_what_mergekit_multi_gives(models: Path, tmp_path: Path) -> None:
    text = TWO.replace("first+DIR/adapter", "DIR/a").replace("\n---", "\ndtype: float32\n---") + "dtype: float32\n"
    ours = run(written(models, tmp_path, text))
    program = Path(str(MERGEKIT)).parent / "mergekit-multi"
    command: list[str | Path] = [
        program,
        tmp_path / "recipe.yaml",
        "--out-path",
        tmp_path / "theirs",
        "-I",
        tmp_path / "between",
    ]
    subprocess.run([*command, "--no-copy-tokenizer"], check=True)
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    check_equal(ours, theirs)
