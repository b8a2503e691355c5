"""Runs of models with statistics: published step by step, extended and verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import weight_matrices
from hubmerge.checkpoints.formats import shards
from hubmerge.plan import headers
from tests.checkpoints.small_buffers import batch_norm, m2m100
from tests.reliability.target_checks import NAMED_AFTER_THE_REPO, files_at

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
NAMES = ("one", "two", "three")
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return repos of a base model and of three checkpoints whose variances are a tenth of the base model's."""
    folder, api, repos = tmp_path_factory.mktemp("models"), HfApi(), {}
    for seed, name in enumerate(("base", *NAMES)):
        generator = torch.Generator().manual_seed(seed)
        model = batch_norm()
        for parameter in model.parameters() if seed else ():
            parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        for buffer, values in model.named_buffers():
            if buffer.endswith("running_var") and seed:
                values.mul_(0.1 * seed)
        model.save_pretrained(folder / name)
        repos[name] = api.create_repo(f"local/statistics-{name}", exist_ok=True).repo_id
        api.upload_folder(repo_id=repos[name], folder_path=folder / name)
    return repos


def write(folder: Path, sources: dict[str, str], names: tuple[str, ...], repo: str | None, **more: Any) -> Path:
    recipe: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "parameters": {"scaling": 0.6},
        "base_model": sources["base"],
    }
    recipe["models"] = [{"model": sources[name], "name": name} for name in names]
    recipe |= {"publish": {"repo": repo}} if repo is not None else {}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, **more}))
    return path


def statistics(repo: str, revision: str = "main") -> dict[str, torch.Tensor]:
    values = load_file(hf_hub_download(repo, WEIGHTS, revision=revision))
    return {name: value for name, value in values.items() if "running" in name}


def test_a_stream_with_statistics_is_published_extended_and_verified(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo, whole = repo_name("merged"), repo_name("merged")
    status, text, _ = hubmerge("plan", write(tmp_path, sources, NAMES, repo))
    assert status == 0
    assert "averaged 12 tensors, such as " in text
    assert "Statistics: buffers that ResNetForImageClassification in transformers" in " ".join(text.split())
    assert len([line for line in text.splitlines() if line.startswith("ignored")]) == 1
    events = map(json.loads, hubmerge("plan", write(tmp_path, sources, NAMES, repo), "--json")[1].splitlines())
    assert [len(event["averaged"]) for event in events if "averaged" in event] == [12]
    for names, target in ((NAMES[:2], repo), (NAMES, repo), (NAMES, whole)):
        status, _, errors = hubmerge("run", write(tmp_path, sources, names, target))
        assert status == 0, errors
    for step, tag in enumerate(("step-01", "step-02", "step-03"), start=1):
        assert files_at(repo, tag)[WEIGHTS] == files_at(whole, tag)[WEIGHTS]
        each = [statistics(sources[name]) for name in NAMES[:step]]
        for name, value in statistics(repo, tag).items():
            torch.testing.assert_close(value, torch.stack([one[name] for one in each]).mean(0))
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    assert [step["tensors"]["averaged"] for step in report["steps"]] == [12, 12, 12]
    card = Path(hf_hub_download(repo, "README.md")).read_text()
    assert "12 tensors are statistics and not weights" in card
    status, text, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, text + errors
    assert "3 states have the digests" in text


@contextmanager
def older_version() -> Iterator[None]:
    """Merge and write as version 0.1.0 did: statistics count as weights, kept tensors have shards of their own."""

    def then(*arguments: Any) -> Any:
        rule = weight_matrices(*arguments)
        return replace(rule, buffers=rule.buffers.counted_as_weights(arguments[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "weight_matrices", then)
        patch.setattr(shards, "KEPT_SHARD_BYTES", 0)
        yield


def test_a_stream_that_version_0_1_0_began_keeps_its_rules(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo, whole = repo_name("merged"), repo_name("merged")
    method = {"merge_method": "weight_average", "parameters": {}}
    with older_version():
        for names, target in ((NAMES[:2], repo), (NAMES, whole)):
            status, _, errors = hubmerge("run", write(tmp_path, sources, names, target, **method))
            assert status == 0, errors
    recipe = write(tmp_path, sources, NAMES, repo, **method)
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "statistics such as running_var are added up like weights" in text
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    shared = {*NAMED_AFTER_THE_REPO}
    extended, expected = (files_at(one, "step-03") for one in (repo, whole))
    assert {name: extended[name] for name in extended.keys() - shared} == {
        name: expected[name] for name in expected.keys() - shared
    }
    assert "model-00001-of-00002.safetensors" in extended
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    assert not [step for step in report["steps"] if "averaged" in step["tensors"]]
    status, text, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, text + errors


def test_such_a_stream_ends_before_a_variance_is_negative(
    sources: dict[str, str], hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("merged")
    with older_version():
        assert hubmerge("run", write(tmp_path, sources, NAMES[:1], repo))[0] == 0
    status, _, errors = hubmerge("run", write(tmp_path, sources, NAMES, repo))
    assert status != 0
    assert "running_var' would have negative values" in errors
    assert "merge the checkpoints anew, into another target repo" in errors
    assert 'tensors: {exclude: ["resnet.' in errors
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01"]


def test_a_cache_in_a_later_checkpoint_does_not_end_a_stream(
    hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    model, repo = m2m100(), repo_name("merged")
    for name in ("base", *NAMES[:2]):
        model.save_pretrained(tmp_path / name)
    file = tmp_path / "two" / WEIGHTS
    save_file({**load_file(file), "model.encoder.embed_positions.weights": torch.rand(18, 8)}, file)
    sources = {name: str(tmp_path / name) for name in ("base", *NAMES[:2])}
    for names in (NAMES[:1], NAMES[:2]):
        status, _, errors = hubmerge("run", write(tmp_path, sources, names, repo))
        assert status == 0, errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    assert ["averaged" in step["tensors"] for step in report["steps"]] == [False, False]
