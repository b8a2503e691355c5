"""Merging from Python: the values of the command line, in files and in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

import hubmerge
from tests.checkpoints.families import make
from tests.examples.moving_average import MovingAverage
from tests.stage import Stage


@pytest.fixture(scope="module")
def folders(stage: Stage) -> tuple[Path, list[Path]]:
    """Return the base model and the checkpoints of the stage, as folders."""
    return Path(snapshot_download(stage.base)), [Path(snapshot_download(repo)) for repo in stage.towers.values()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a folder."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_run_yields_the_report_of_each_step(stage: Stage, tmp_path: Path) -> None:
    recipe = stage.recipe(None, evaluate=None)
    run = hubmerge.run(recipe, out=tmp_path / "merged", work_dir=tmp_path / "work", progress=None)
    assert [step.step for step in run] == [1, 2, 3]
    assert run.length == 3
    assert run.report is not None
    assert [step.name for step in run.report.steps] == list(stage.towers)
    assert (tmp_path / "merged" / "config.json").is_file()
    again = hubmerge.run(recipe, out=tmp_path / "merged", work_dir=tmp_path / "work", progress=None)
    assert list(again) == []
    assert again.finish() == run.report


def test_every_step_requires_a_folder() -> None:
    with pytest.raises(hubmerge.UsageError, match="--every-step requires --out DIR"):
        hubmerge.run("recipe.yaml", every_step=True)


def test_plan_has_what_its_text_shows(stage: Stage) -> None:
    plan = hubmerge.plan(stage.recipe(None, evaluate=None), progress=None)
    assert [step.name for step in plan.steps] == list(stage.towers)
    assert not any(step.done for step in plan.steps)
    assert f"{plan.weight_matrices} weight matrices" in str(plan)
    assert plan.to_dict()["download_bytes"] == plan.download_bytes
    assert set(plan.kept) == set(plan.to_dict()["kept"])


def test_merge_takes_folders_and_repos(stage: Stage, folders: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = folders
    towers = list(stage.towers.values())
    out = hubmerge.merge(
        stage.base,
        [towers[0], models[1]],
        method="task_arithmetic",
        parameters={"scaling": 0.3},
        out=tmp_path / "merged",
        progress=None,
    )
    assert out == tmp_path / "merged"
    assert [path.name for path in tmp_path.iterdir()] == ["merged"], "the work folder is removed"
    before, merged = weights(base), weights(out)
    tuned = [weights(model) for model in models[:2]]
    own = next(name for name in tuned[0] if name.endswith("fc1.weight"))
    name = f"vision_model.{own}"
    deltas = sum((one[own].double() - before[name].double() for one in tuned), torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(merged[name].double(), before[name].double() + 0.3 * deltas, rtol=1e-6, atol=1e-7)


def test_state_dicts_are_merged_like_folders(folders: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = folders
    out = hubmerge.merge(base, models, method="opcm", parameters={"alpha": 0.4}, out=tmp_path / "merged", progress=None)
    merged = hubmerge.merge_state_dicts(
        weights(base),
        [weights(model) for model in models],
        method="opcm",
        parameters={"alpha": 0.4},
        config=json.loads((base / "config.json").read_text()),
    )
    expected = weights(out)
    assert list(merged) != []
    assert {name: tensor.dtype for name, tensor in merged.items()} == {n: t.dtype for n, t in expected.items()}
    for name, tensor in expected.items():
        assert torch.equal(merged[name], tensor), name


def test_a_method_object_merges_folders_and_state_dicts(folders: tuple[Path, list[Path]], tmp_path: Path) -> None:
    base, models = folders
    out = hubmerge.merge(base, models, method=MovingAverage(), parameters={"newest": 0.25}, out=tmp_path / "merged")
    merged = hubmerge.merge_state_dicts(
        weights(base), [weights(model) for model in models], method=MovingAverage(), parameters={"newest": 0.25}
    )
    for name, tensor in weights(out).items():
        assert torch.equal(merged[name], tensor), name
    with pytest.raises(hubmerge.RecipeError, match=r"^merge_method: .*moving_average"):
        hubmerge.merge(base, models, method="moving_average", out=tmp_path / "other")


def test_state_dicts_keep_dtype_and_do_not_share_memory() -> None:
    base = {"layer.weight": torch.ones(3, 2, dtype=torch.bfloat16), "count": torch.tensor(7)}
    tuned = {"layer.weight": torch.full((3, 2), 2.0, dtype=torch.float32), "count": torch.tensor(9)}
    merged = hubmerge.merge_state_dicts(base, [tuned], method="weight_average")
    assert merged["layer.weight"].dtype == torch.bfloat16
    assert merged["layer.weight"].tolist() == [[2.0, 2.0]] * 3
    assert merged["count"].item() == 7
    merged["count"].fill_(0)
    assert base["count"].item() == 7


def test_mistakes_in_state_dicts_are_named() -> None:
    base = {"layer.weight": torch.zeros(3, 2)}
    with pytest.raises(hubmerge.UsageError, match="no model"):
        hubmerge.merge_state_dicts(base, [])
    with pytest.raises(hubmerge.UsageError, match=r"models\[0\]\['layer.weight'\] is not a tensor but list"):
        hubmerge.merge_state_dicts(base, [{"layer.weight": [1.0]}])  # type: ignore[dict-item]
    with pytest.raises(hubmerge.CheckpointError, match=r"models\[1\].*layer\.weight"):
        hubmerge.merge_state_dicts(base, [base, {"layer.weight": torch.zeros(2, 2)}], method="linear")
    with pytest.raises(hubmerge.RecipeError, match=r"^parameters\.alpha: "):
        hubmerge.merge_state_dicts(base, [base], method="opcm", parameters={"alpha": 7})


def test_tied_tensors_of_state_dicts_are_merged_under_both_names() -> None:
    base, first, second = (make("Qwen2ForCausalLM", seed) for seed in range(3))
    config = {**base.config.to_dict(), "architectures": ["Qwen2ForCausalLM"]}
    states = [model.state_dict() for model in (base, first, second)]
    merged = hubmerge.merge_state_dicts(states[0], states[1:], method="weight_average", config=config)
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    torch.testing.assert_close(merged[table], (states[1][table] + states[2][table]) / 2)
    assert torch.equal(merged[head], merged[table])
    own = {**states[2], head: states[2][head] + 1.0}
    alone = {name: value for name, value in states[0].items() if name != head}
    for start in (states[0], alone):
        merged = hubmerge.merge_state_dicts(start, [states[1], own], method="weight_average", config=config)
        torch.testing.assert_close(merged[head], (states[1][head] + own[head]) / 2)
