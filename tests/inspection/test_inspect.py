"""`hubmerge inspect`: checkpoints, streams, states, and merges without each entry."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from safetensors.torch import load_file, save_file

import hubmerge as api
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]


def scores_of(repo: str, step: int = -1) -> dict[str, float]:
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    return {task: values["accuracy"] for task, values in report["steps"][step]["scores"].items()}


def test_a_checkpoint_is_described(stage: Stage, hubmerge: Command) -> None:
    repo = next(iter(stage.towers.values()))
    status, output, errors = hubmerge("inspect", repo, "--json")
    assert status == 0, errors
    found = next(line for line in map(json.loads, output.splitlines()) if line["event"] == "inspection")
    folder = snapshot_download(repo)
    values = load_file(Path(folder, "model.safetensors"))
    assert (found["kind"], found["tensors"]) == ("checkpoint", len(values))
    assert found["parameters"] == sum(value.numel() for value in values.values())
    assert found["norm"] is None
    status, output, _ = hubmerge("inspect", folder, "--json")
    found = next(line for line in map(json.loads, output.splitlines()) if line["event"] == "inspection")
    floats = [value.double() for value in values.values() if value.is_floating_point()]
    assert found["norm"] == pytest.approx(float(torch.cat([value.view(-1) for value in floats]).norm()), rel=1e-9)
    assert hubmerge("inspect", repo, "--norms")[0] == 0
    status, _, errors = hubmerge("inspect", "./nowhere")
    assert status == 2
    assert "folder not found" in errors


def test_the_card_of_a_checkpoint_says_what_it_was_made_from(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    folder = Path(shutil.copytree(snapshot_download(stage.base), tmp_path / "model"))
    for metadata, expected in (
        ("base_model: [me/a, me/b]\nbase_model_relation: merge", "made from   me/a, me/b (merge), says its card\n"),
        ("base_model: me/a", "made from   me/a, says its card\n"),
        ('base_model: "a\\e[31m"', "made from   a [31m, says its card\n"),
        ("base_model: [1, {}]", None),
        ("base_model: [", None),
    ):
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "README.md").write_text(f"---\n{metadata}\n---\n# Model\n", encoding="utf-8")
        output = hubmerge("inspect", folder)[1]
        assert expected in output if expected else "made from" not in output
    repo = repo_name("model")
    HfApi().create_repo(repo)
    (folder / "README.md").write_text("---\nbase_model: me/a\n---\n", encoding="utf-8")
    HfApi().upload_folder(repo_id=repo, folder_path=folder)
    assert api.inspect(repo, progress=None).made_from == ("me/a",)


@pytest.mark.slow
def test_a_stream_is_described_and_scored_without_each_entry(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo, never = repo_name("merged"), repo_name("never")
    first, second, third = stage.towers
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, merge_method="wudi")))[0] == 0
    status, output, errors = hubmerge("inspect", repo)
    assert status == 0, errors
    text = output + errors
    for part in ("by wudi, 3 steps", second, stage.towers[second], "delta", "state "):
        assert part in text
    found = api.inspect(repo, progress=None)
    assert found.kind == "stream"
    assert found.state_bytes is not None
    assert found.state_bytes > 8 * found.parameters / 2
    state = max((tmp_path / "work").rglob("state.json"), key=lambda path: path.stat().st_mtime_ns).parent
    described = api.inspect(state, progress=None)
    assert (described.kind, described.method, described.step) == ("state", "moments", 3)
    assert described.parts[:2] == ("gram", "products")
    assert "merged      by a method over moments (wudi, iso_c, " in str(described)

    alone = stage.recipe(never, entries=(first, third), merge_method="wudi")
    assert hubmerge("run", stage.write(tmp_path, alone))[0] == 0
    status, output, errors = hubmerge("inspect", repo, "--leave-one-out", "--json", "--work-dir", tmp_path / "own")
    assert status == 0, errors
    scores = next(line for line in map(json.loads, output.splitlines()) if line["event"] == "leave-one-out")
    assert sorted(one["name"] for one in scores["entries"]) == sorted(stage.towers)
    assert "subtracted" in scores["how"]
    whole, without = scores_of(repo), scores_of(never)
    left = next(one for one in scores["entries"] if one["name"] == second)
    assert scores["whole"] == whole
    for task, score in without.items():
        assert left["changes"][task] == pytest.approx(whole[task] - score, abs=1e-12)
    others = [left["changes"][task] for task in (first, third)]
    assert left["others"] == pytest.approx(sum(others) / 2)
    given = [one["others"] for one in scores["entries"]]
    assert given == sorted(given)


@pytest.mark.slow
def test_methods_that_cannot_subtract_merge_the_others_again(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    first, second, third = stage.towers
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(None)), "--out", out)[0] == 0
    recipe = stage.write(tmp_path, stage.recipe(None, entries=(first, third)))
    assert hubmerge("run", recipe, "--out", alone, "--work-dir", tmp_path / "other")[0] == 0
    scores = api.leave_one_out(out, work_dir=tmp_path / "inspecting", progress=None)
    assert "merged again" in scores.how
    report = json.loads((alone / "hubmerge.json").read_text(encoding="utf-8"))
    left = next(one for one in scores.entries if one.name == second)
    for task, values in report["steps"][-1]["scores"].items():
        assert left.changes[task] == pytest.approx(scores.whole[task] - values["accuracy"], abs=1e-12)


def test_joint_merges_and_single_entries_are_refused(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    out, names = tmp_path / "out", tuple(stage.towers)
    joint = stage.recipe(None, entries=names[:2], merge_method="linear", form="joint", evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, joint), "--out", out)[0] == 0
    merged = [(one.step, one.name) for one in api.inspect(out, progress=None).entries]
    assert merged == [(1, name) for name in names[:2]]
    status, _, errors = hubmerge("inspect", out, "--leave-one-out")
    assert status == 2
    assert "linear merges all models at once" in errors
    one = stage.recipe(None, entries=names[:1], evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, one), "--out", tmp_path / "one", "--work-dir", tmp_path / "w")[0] == 0
    status, _, errors = hubmerge("inspect", tmp_path / "one", "--leave-one-out")
    assert status == 2
    assert "nothing would be left" in errors


@pytest.fixture
def odd_stream(stage: Stage, tmp_path: Path) -> dict[str, Any]:
    """Return a recipe of six local checkpoints, the last of which is twenty times as far from the base model."""
    original = Path(snapshot_download(next(iter(stage.towers.values()))))
    base = Path(shutil.copytree(original, tmp_path / "base"))
    values = load_file(base / "model.safetensors")
    entries = []
    for number, length in enumerate((1.0, 1.2, 0.9, 1.1, 1.0, 20.0)):
        generator = torch.Generator().manual_seed(number)
        moved = {
            name: value + 1e-3 * length * torch.randn(value.shape, generator=generator)
            if value.is_floating_point()
            else value
            for name, value in values.items()
        }
        folder = Path(shutil.copytree(base, tmp_path / f"tower-{number}"))
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        entries.append({"model": str(folder)})
    return {"merge_method": "weight_average", "base_model": str(base), "models": entries}


def test_a_run_warns_of_entries_far_off(
    stage: Stage, hubmerge: Command, tmp_path: Path, odd_stream: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    status, output, errors = hubmerge("run", stage.write(tmp_path, odd_stream), "--out", out)
    assert status == 0, errors
    assert "tower-5 lies far off the other entries" in output + errors
    report = json.loads((out / "hubmerge.json").read_text(encoding="utf-8"))
    assert [warning for warning in report["steps"][-1]["warnings"] if "tower-5 lies far off" in warning]
    scores = api.leave_one_out(out, work_dir=tmp_path / "inspecting", progress=None)
    assert [one.name for one in scores.flagged] == ["tower-5"]
    assert "no tasks" in str(scores)
    assert hubmerge("verify", out)[0] == 0


def test_a_plan_warns_of_merged_entries_far_off(
    stage: Stage, hubmerge: Command, tmp_path: Path, odd_stream: dict[str, Any], repo_name: Names
) -> None:
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, {**odd_stream, "publish": {"repo": repo, "steps": "last"}})
    assert hubmerge("run", recipe)[0] == 0
    status, output, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "tower-5 lies far off the other entries" in output + errors
