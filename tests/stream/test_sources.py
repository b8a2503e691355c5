"""Sources of checkpoints over HTTP: revisions, folders in repos, adapters, local folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file

from hubmerge.checkpoints import AdaptedCheckpoint, Checkpoint, open_adapter, open_checkpoint
from hubmerge.cli.main import main
from hubmerge.errors import CheckpointError
from hubmerge.localhub import LocalHub
from hubmerge.stream.sources import Source, fetch_folder, folder_digest
from merge_recipes import Lock, ModelReference
from tests.checkpoints.families import base, make, save, tuned
from tests.checkpoints.formats.test_formats import pickled_shards
from tests.checkpoints.merging import merge
from tests.checks import every

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

FAMILY = "LlamaForCausalLM"
Names = Callable[..., str]


def write_adapter(folder: Path, seed: int, made_for: str | None) -> Path:
    """Write a LoRA adapter for the base model, as peft saves it."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(make(FAMILY), LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"]))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.add_(0.02 * torch.randn(parameter.shape))
    model.save_pretrained(str(folder))
    (folder / "README.md").unlink()  # it names no base model, because this one has no name: the Hub refuses such a card
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = made_for
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def push(repo: str, folder: Path, path_in_repo: str | None = None, **options: Any) -> str:
    api = HfApi()
    api.create_repo(repo, exist_ok=True)
    return str(api.upload_folder(repo_id=repo, folder_path=folder, path_in_repo=path_in_repo, **options).oid)


def run(
    tmp_path: Path, base_model: str, models: Sequence[str], command: str = "run", **changes: Any
) -> tuple[int, Path]:
    entries = [{"model": model, "name": f"entry-{number}"} for number, model in enumerate(models)]
    recipe = {"merge_method": "opcm", "base_model": base_model, "models": entries, **changes}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    if command == "plan":
        return main(["plan", str(path), "--json"]), path
    out = tmp_path / "out"
    return main(["run", str(path), "--quiet", "--work-dir", str(tmp_path / "work"), "--out", str(out)]), out


def values(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    assert every(torch.equal(found[name], value) for name, value in expected.items())


def test_revisions_and_subfolders_in_one_stream(
    tmp_path: Path, repo_name: Names, local_hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    api = HfApi()
    start = save(base(FAMILY), tmp_path / "base")
    folders = {seed: save(tuned(FAMILY, seed), tmp_path / f"tuned{seed}") for seed in (1, 2, 3, 4)}
    base_repo, moving, places = repo_name("base"), repo_name("moving"), repo_name("places")
    push(base_repo, start)
    push(moving, folders[1])
    api.create_tag(moving, tag="v1")
    push(moving, folders[2], create_pr=True)
    third = push(moving, folders[3])
    repository = local_hub.site.registry.find("model", moving)
    assert repository is not None
    repository.write_ref("convert", "safetensors", third)
    push(moving, folders[4])
    push(places, folders[2], "a folder/of towers.v2")
    push(places, pickled_shards(tuned(FAMILY, 5), tmp_path / "tuned5"), "pickled")
    models = [
        f"{moving}@v1",
        f"{moving}@refs/pr/1",
        f"{moving}@refs/convert/safetensors",
        f"{moving}@{api.list_repo_commits(moving)[0].commit_id}",
        f"{places}/pickled@main",
        f"{places}/a folder/of towers.v2",
    ]
    status, out = run(tmp_path, base_repo, models)
    assert status == 0, capsys.readouterr().err
    order = [folders[1], folders[2], folders[3], folders[4], tmp_path / "tuned5", folders[2]]
    assert_same(values(out), merge(tmp_path / "local", start, order).values())
    *between, last = (step["rounding"] for step in json.loads((out / "hubmerge.json").read_text())["steps"])
    assert between == [None] * 5, "the models between are not wanted, so none is written"
    assert 0.0 < last < 1e-4
    lock = Lock.from_yaml((out / "hubmerge.lock.yaml").read_text())
    assert [str(model.reference) for model in lock.models] == models
    assert lock.models[4].commit == lock.models[5].commit


@pytest.mark.parametrize("where", ["hub", "local"])
def test_adapters_as_entries(tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str], where: str) -> None:
    start = save(base(FAMILY), tmp_path / "base")
    other = save(tuned(FAMILY, 1), tmp_path / "tuned")
    base_repo = repo_name("base") if where == "hub" else str(start)
    first = write_adapter(tmp_path / "first", 1, base_repo)
    second = write_adapter(tmp_path / "second", 2, "somebody/else")
    places = {"base": start, "tuned": other, "first": first, "second": second}
    if where == "hub":
        repos = {name: base_repo if name == "base" else repo_name(name) for name in places}
        for name, folder in places.items():
            push(repos[name], folder, "lora/v1" if name == "second" else None)
        repos["second"] += "/lora/v1"
    else:
        repos = {name: str(folder) for name, folder in places.items()}
    models = [
        repos["first"],
        f"{repos['base']}+{repos['second']}",
        f"{repos['tuned']}+{repos['first']}",
        repos["tuned"],
    ]
    status, out = run(tmp_path, repos["base"], models)
    assert status == 0, capsys.readouterr().err

    def adapted(model: Path, adapter: Path) -> Checkpoint:
        return AdaptedCheckpoint(open_checkpoint(model), open_adapter(adapter, adapter.name))

    order: list[Path | Checkpoint] = [adapted(start, first), adapted(start, second), adapted(other, first), other]
    assert_same(values(out), merge(tmp_path / "again", start, order).values())
    assert not list(out.glob("adapter*"))

    status, _ = run(tmp_path, repos["base"], models, "plan")
    assert status == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    plan = next(event for event in events if event["event"] == "plan")
    assert plan["download_bytes"] == 0
    assert plan["layouts"] == {f"entry-{number}": "names as they are" for number in range(4)}
    assert plan["layout_written"].startswith("LlamaForCausalLM, named as in the base model's files (")


def test_plan_downloads_no_adapter(tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]) -> None:
    base_repo, lora = repo_name("base"), repo_name("lora")
    start = save(base(FAMILY), tmp_path / "base")
    push(base_repo, start)
    adapter = write_adapter(tmp_path / "lora", 1, base_repo)
    push(lora, adapter)
    status, _ = run(tmp_path, base_repo, [lora], "plan")
    assert status == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    plan = next(event for event in events if event["event"] == "plan")
    weights = sum(
        (folder / name).stat().st_size
        for folder, name in ((start, "model.safetensors"), (adapter, "adapter_model.safetensors"))
    )
    assert weights <= plan["download_bytes"] <= weights + 20_000
    assert plan["weight_matrices"] == 8


@pytest.mark.parametrize(
    ("made_for", "expected"),
    [("somebody/else", "is an adapter for somebody/else"), (None, "is an adapter for an unnamed model")],
)
def test_adapter_for_another_model(
    tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str], made_for: str | None, expected: str
) -> None:
    base_repo, lora = repo_name("base"), repo_name("lora")
    push(base_repo, save(base(FAMILY), tmp_path / "base"))
    push(lora, write_adapter(tmp_path / "lora", 1, made_for))
    status, _ = run(tmp_path, base_repo, [f"{lora}@main"])
    errors = capsys.readouterr().err
    assert status == 4
    assert expected in errors
    assert f"{base_repo}+{lora}@main" in errors.replace("\n", "").replace("  ", " ")


def test_missing_subfolders(tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]) -> None:
    base_repo, tower = repo_name("base"), repo_name("tower")
    push(base_repo, save(base(FAMILY), tmp_path / "base"))
    push(tower, save(tuned(FAMILY, 1), tmp_path / "tuned"), "here")
    status, _ = run(tmp_path, base_repo, [f"{tower}/there"])
    assert status == 3
    assert "there" in capsys.readouterr().err
    status, _ = run(tmp_path, base_repo, [tower])
    assert status in {3, 4}
    assert tower in capsys.readouterr().err


def test_base_model_in_a_subfolder(tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]) -> None:
    start = save(base(FAMILY), tmp_path / "base")
    (start / "tokenizer_config.json").write_text("{}")
    checkpoint = save(tuned(FAMILY, 1), tmp_path / "tuned")
    repo = repo_name("all")
    push(repo, start, "base")
    push(repo, checkpoint, "tuned")
    status, out = run(tmp_path, f"{repo}/base", [f"{repo}/tuned"])
    assert status == 0, capsys.readouterr().err
    assert_same(values(out), merge(tmp_path / "local", start, [checkpoint]).values())
    assert (out / "tokenizer_config.json").is_file()


def test_local_folders_with_plus_and_at_in_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, checkpoint = save(base(FAMILY), tmp_path / "base+1"), save(tuned(FAMILY, 1), tmp_path / "lr@3+e")
    write_adapter(tmp_path / "lora@2", 1, str(start))
    models = [r"./lr\@3\+e", r"./base\+1+./lora\@2"]
    for _ in range(2):
        status, out = run(tmp_path, r"./base\+1", models)
        assert status == 0, capsys.readouterr().err
    lock = Lock.from_yaml((out / "hubmerge.lock.yaml").read_text())
    assert [str(model.reference) for model in lock.models] == models
    adapted = AdaptedCheckpoint(open_checkpoint(start), open_adapter(tmp_path / "lora@2", "lora"))
    assert_same(values(out), merge(tmp_path / "again", start, [checkpoint, adapted]).values())

    status, _ = run(tmp_path, r"./base\+1", ["./base+1/lora"])
    assert status == 4
    assert r"a + or @ in its name is written \+ or \@" in " ".join(capsys.readouterr().err.split())


def test_local_files_that_changed_after_locking(tmp_path: Path) -> None:
    folder = save(base(FAMILY), tmp_path / "both")
    write_adapter(folder, 1, None)
    source = Source(ModelReference(str(folder)), folder_digest(folder))
    for part in (source, replace(source, is_adapter=True)):
        assert fetch_folder(part) == folder
    write_adapter(folder, 2, None)
    for part in (source, replace(source, is_adapter=True)):
        with pytest.raises(CheckpointError, match="changed since the stream was locked"):
            fetch_folder(part)
