"""Partial downloads (`fetch: ranges`): equal results from a fraction of the bytes."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import load_file, save_file

from hubmerge.hub.fetch import FIRST_BYTES
from hubmerge.localhub import LocalHub
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
TOWER = {"include": ["vision_model.*"]}


class Meter:
    """Middleware that counts the bytes sent of each model file."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if "/resolve/" not in path or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        self.requests[path] += 1

        async def count(message: Any) -> None:
            self.sent[path] += len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, count)

    def of(self, repo: str, ending: str = ".safetensors") -> int:
        return sum(size for path, size in self.sent.items() if path.startswith(f"/{repo}/") and path.endswith(ending))


@pytest.fixture
def meter(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Meter:
    meter = Meter(local_hub.faults.app)
    monkeypatch.setattr(local_hub.faults, "app", meter)
    return meter


@pytest.fixture(scope="module")
def whole(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Push CLIP models with a text tower much larger than the merged tensors; return base model and entries by name."""
    from transformers import CLIPModel

    folder = tmp_path_factory.mktemp("whole")
    base = Path(shutil.copytree(snapshot_download(stage.base), folder / "base"))
    model = CLIPModel.from_pretrained(base)
    torch.manual_seed(4)
    rows = 40_000
    table = torch.randn(rows, model.config.text_config.hidden_size)
    embedding = torch.nn.Embedding(rows, table.shape[1], _weight=table)
    model.text_model.embeddings.token_embedding = embedding
    model.config.text_config.vocab_size = rows
    model.save_pretrained(base)
    repos = {"base": base}
    start = load_file(base / "model.safetensors")
    for name, tower in stage.towers.items():
        tuned = load_file(Path(snapshot_download(tower)) / "model.safetensors")
        copy = Path(shutil.copytree(base, folder / name))
        tuned = {f"vision_model.{key.removeprefix('vision_model.')}": value for key, value in tuned.items()}
        assert set(tuned) <= set(start)
        save_file({**start, **tuned}, copy / "model.safetensors", metadata={"format": "pt"})
        repos[name] = copy
    api = HfApi()
    for name, path in repos.items():
        api.create_repo(f"local/whole-{name}")
        api.upload_folder(repo_id=f"local/whole-{name}", folder_path=path)
    return "local/whole-base", {name: f"local/whole-{name}" for name in stage.towers}


def merged_bytes(whole: tuple[str, dict[str, str]]) -> int:
    values = load_file(Path(snapshot_download(whole[0])) / "model.safetensors")
    return sum(value.nbytes for name, value in values.items() if name.startswith("vision_model."))


def recipe_over(stage: Stage, whole: tuple[str, dict[str, str]], repo: str, **changes: Any) -> dict[str, Any]:
    models = [{"model": model, "name": name} for name, model in whole[1].items()]
    return stage.recipe(repo, base_model=whole[0], models=models, tensors=TOWER, **changes)


def weights_of(repo: str) -> list[dict[str, str]]:
    report = json.loads(Path(HfApi().hf_hub_download(repo, "hubmerge.json")).read_text())
    return [{**step["files"], "state": step["state_digest"]} for step in report["steps"]]


def scores_of(repo: str) -> list[Any]:
    report = json.loads(Path(HfApi().hf_hub_download(repo, "hubmerge.json")).read_text())
    return [report["own_scores"], *(step["scores"] for step in report["steps"])]


def test_partial_downloads_give_equal_results(
    stage: Stage,
    whole: tuple[str, dict[str, str]],
    meter: Meter,
    hubmerge: Command,
    tmp_path: Path,
    repo_name: Callable[..., str],
) -> None:
    tower, headers = merged_bytes(whole), 2 * FIRST_BYTES
    parts = repo_name("parts")
    recipe = stage.write(tmp_path, recipe_over(stage, whole, parts, fetch="ranges"))
    status, output, _ = hubmerge("plan", recipe, "--json")
    assert status == 0, output
    planned = json.loads(output.splitlines()[-2])
    assert planned["download_bytes"] < 4 * tower + 10_000_000
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    full = Path(snapshot_download(whole[0])).joinpath("model.safetensors").stat().st_size
    assert full > 4 * (tower + headers)
    for model in whole[1].values():
        assert tower <= meter.of(model) <= tower + 2 * headers
        assert not list(Path(snapshot_download(model, allow_patterns="*.json")).glob("*.safetensors"))
    assert not any((tmp_path / "work").glob("*/parts/*")), "a step that is finished leaves nothing of its checkpoint"
    cached = repo_name("cached")
    assert hubmerge("run", stage.write(tmp_path, recipe_over(stage, whole, cached)))[0] == 0
    assert every(meter.of(model) >= full for model in whole[1].values())
    assert weights_of(parts) == weights_of(cached)
    assert scores_of(parts) == scores_of(cached)

    # Files in the Hub cache are not fetched.
    before = {model: meter.of(model) for model in whole[1].values()}
    again = repo_name("again")
    recipe = stage.write(tmp_path, recipe_over(stage, whole, again, fetch="ranges", evaluate=None))
    assert hubmerge("run", recipe)[0] == 0
    for model, sent in before.items():
        assert meter.of(model) - sent <= 2 * headers, "no more than its header, which the plan is made from"
    assert weights_of(again) == weights_of(cached)


class Corruptor:
    """Middleware that flips one bit in the last byte of every range of a model's weights beyond the header."""

    def __init__(self, app: Any, repo: str) -> None:
        self._app, self._repo = app, repo

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = dict(scope.get("headers", ())).get(b"range", b"")
        values = asked.startswith(b"bytes=") and not asked.startswith(b"bytes=0-")
        if not values or not scope["path"].startswith(f"/{self._repo}/resolve/"):
            await self._app(scope, receive, send)
            return

        async def flip(message: Any) -> None:
            body = bytearray(message.get("body", b""))
            if message["type"] == "http.response.body" and body:
                body[-1] ^= 0x40
                message = {**message, "body": bytes(body)}
            await send(message)

        await self._app(scope, receive, flip)


def test_verify_finds_ranges_that_are_not_those_of_the_file(
    stage: Stage,
    local_hub: LocalHub,
    whole: tuple[str, dict[str, str]],
    hubmerge: Command,
    tmp_path: Path,
    repo_name: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo, (first, *_) = repo_name("flipped"), whole[1]
    models = [{"model": whole[1][first], "name": first}]
    content = stage.recipe(repo, base_model=whole[0], models=models, tensors=TOWER, fetch="ranges", evaluate=None)
    recipe = stage.write(tmp_path, content)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    note = "fetch: ranges: the files of 1 checkpoint are not compared with their digests on the Hub"
    assert note in hubmerge("plan", recipe)[1]
    with monkeypatch.context() as patch:
        patch.setattr(local_hub.faults, "app", Corruptor(local_hub.faults.app, whole[1][first]))
        status, output, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert f"note: {note}" in output
    status, output, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 6, output + errors
    assert "same     sources: the files that the recipe fetches by ranges were read whole" in output
    assert "differs  state: the state after step 1" in output
