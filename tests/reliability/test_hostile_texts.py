"""Malicious cards, recipes, metrics and file names: escaped or refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubmerge.localhub import LocalHub
from tests.localhub.planting import plant
from tests.reliability.target_checks import everything
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


def test_card_escapes_its_texts(
    local_hub: LocalHub, stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    script = "<script>alert(1)</script>"
    folder = tmp_path / "base"
    shutil.copytree(stage.folder / "base", folder)
    card = f"---\nlicense: '{script}'\ntags: ['{script}']\n---\n{script}<img src=x onerror=alert(1)>\n"
    (folder / "README.md").write_text(card)
    base, target = repo_name("base"), repo_name("target")
    HfApi().create_repo(base)
    operations = [(path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file()]
    for name, content in operations:
        if name != "README.md":
            HfApi().upload_file(repo_id=base, path_in_repo=name, path_or_fileobj=content)
    plant(local_hub, base, "README.md", card.encode())  # the Hub would refuse it
    recipe = stage.recipe(target, base_model=base, entries=tuple(stage.towers)[:1], evaluate=None)
    path = stage.write(tmp_path, recipe)
    path.write_text(
        path.read_text() + f"# ``` </code></details>{script}\n# ~~~\n```{script}\n".replace("\n```", "\n# ```")
    )
    status, _, errors = hubmerge("run", path)
    assert status == 0, errors
    text = Path(hf_hub_download(target, "README.md", revision="step-01")).read_text()
    _, front, body = text.split("---\n", 2)
    assert isinstance(yaml.safe_load(front), dict)
    assert script in body, "the recipe is shown as it is written"
    assert "<script" not in outside_fences(body)
    assert "onerror" not in body


def outside_fences(markdown: str) -> str:
    """Return the lines outside fenced blocks, by the rules of CommonMark."""
    fence, kept = "", []
    for line in markdown.splitlines():
        found = re.match(r" {0,3}(`{3,}|~{3,})", line)
        if fence:
            if found and found[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif found:
            fence = found[1]
        else:
            kept.append(line)
    assert not fence, "a fence is left open"
    return "\n".join(kept)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [{mark}]",
        "merge_method: !!python/object/apply:os.mkdir [{mark}]",
        "merge_method: opcm\nbase_model: !!python/object/new:os.mkdir [{mark}]",
        "merge_method: !!python/name:os.system",
        "? !!python/object/apply:os.mkdir [{mark}]\n: x",
        "merge_method: !<tag:yaml.org,2002:python/object/apply:os.mkdir> [{mark}]",
        "%TAG ! tag:yaml.org,2002:python/\n---\nmerge_method: !object/apply:os.mkdir [{mark}]",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\nmerge_method: [*d, *d]",
        "merge_method: opcm\nbase_model: a/b\nmodels: [{{model: ../../etc@main}}]",
        "merge_method: opcm\nbase_model: a/b\nmodels: [{{model: a/../../b}}]",
        "merge_method: opcm\nbase_model: a/b\nmodels: [{{model: c/d, name: ../../x}}]",
        "merge_method: opcm\nbase_model: a/b\nmodels: [{{model: c/d}}]\npublish: {{repo: ../../x}}",
    ],
)
def test_recipes_with_yaml_tags(hubmerge: Command, tmp_path: Path, text: str) -> None:
    mark = tmp_path / "executed"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text.format(mark=mark))
    before = everything(tmp_path)
    for command in ("check", "run", "plan", "lock"):
        status, _, errors = hubmerge(command, recipe)
        assert status == 2, errors
        assert "recipe.yaml:" in errors
        assert "Traceback" not in errors
    assert everything(tmp_path) == before


@pytest.mark.parametrize("place", ["somebody/metric", "{folder}/evil", "./evil", "evil", "evil.py"])
def test_untrusted_metrics(
    stage: Stage,
    hubmerge: Command,
    tmp_path: Path,
    repo_name: Names,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    mark, target = tmp_path / "executed", repo_name("target")
    (tmp_path / "evil").mkdir()
    for script in (tmp_path / "evil" / "evil.py", tmp_path / "evil.py"):
        script.write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    recipe = stage.recipe(target, entries=tuple(stage.towers)[:1])
    recipe["evaluate"]["tasks"][0]["metrics"] = [place.format(folder=tmp_path)]
    status, _, errors = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 2, errors
    assert "is code that would run" in errors
    assert "HUBMERGE_TRUSTED_METRICS" in errors
    assert not mark.exists()
    assert not HfApi().repo_exists(target)


class EscapingListings:
    """Hub whose listings name files outside the folder."""

    ESCAPES = ("../../../escaped.json", "/var/../escaped.json", "{folder}/../../../escaped.json", "a\\..\\escaped.json")

    def __init__(self, app: ASGIApp, pattern: str) -> None:
        self._app = app
        self._pattern = re.compile(pattern)
        self.asked: list[str] = []
        self.lied = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "escaped" in scope["path"]:
            self.asked.append(scope["path"])
        if self._pattern.match(f"{scope['method']} {scope['path']}") is None:
            await self._app(scope, receive, send)
            return
        start: list[Message] = []
        body = bytearray()

        async def gather(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, gather)
        entries = json.loads(body)
        folder = entries[0]["path"].partition("/")[0] if entries else "x"
        lies = [escape.format(folder=folder) for escape in self.ESCAPES]
        entries += [{"type": "file", "path": path, "size": 2, "oid": "0" * 40} for path in lies]
        self.lied += 1
        content = json.dumps(entries).encode()
        headers = [(key, value) for key, value in start[0]["headers"] if key != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({**start[0], "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.mark.parametrize("listing", ["sources", "state", "published model"])
def test_listed_files_outside_the_folder(
    stage: Stage,
    hubmerge: Command,
    local_hub: LocalHub,
    tmp_path: Path,
    repo_name: Names,
    monkeypatch: pytest.MonkeyPatch,
    listing: str,
) -> None:
    from huggingface_hub import constants

    from hubmerge.hub import fetch

    names, repo = tuple(stage.towers), repo_name("target")
    run_twice = listing != "sources"
    if run_twice:
        assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, entries=names[:1], evaluate=None)))[0] == 0
        shutil.rmtree(tmp_path / "work")
    fetch.list_files.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "work" / "cache"))
    pattern = {
        "sources": "GET /api/models/hubmerge-demo/[^/]+/tree/",
        "state": f"GET /api/models/{repo}/tree/",
        "published model": f"GET /api/models/{repo}/tree/",
    }[listing]
    liar = EscapingListings(local_hub.faults.app, pattern)
    monkeypatch.setattr(local_hub.faults, "app", liar)
    entries = names[:2] if listing != "published model" else names[:1]
    recipe = stage.write(tmp_path, stage.recipe(repo, entries=entries, evaluate=None))
    out = ["--out", tmp_path / "work" / "out"] if listing == "published model" else []
    before = everything(tmp_path)
    status, _, errors = hubmerge("run", recipe, *out)
    assert liar.lied > 0
    assert liar.asked == []
    assert status == 0, errors
    assert everything(tmp_path) == before
    assert not list(tmp_path.rglob("*escaped*"))
    if out:
        assert load_file(tmp_path / "work" / "out" / "model.safetensors")
