"""Repos and recipes that mean harm: refused, nothing of theirs is run, nothing is written where it does not belong."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hubmerge.localhub import LocalHub
from tests.run.conftest import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
WEIGHTS = "model.safetensors"


class Payload:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def with_header(entries: dict[str, Any], values: bytes, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + values


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def overlapping(content: bytes) -> bytes:
    entries, values = header_of(content)
    names = [name for name in entries if name != "__metadata__"]
    same = [name for name in names if entries[name]["shape"] == entries[names[0]]["shape"]]
    assert len(same) > 1
    for name in same:
        entries[name]["data_offsets"] = entries[names[0]]["data_offsets"]
    return with_header(entries, values)


def huge_offsets(content: bytes) -> bytes:
    entries, values = header_of(content)
    name = next(name for name in entries if name != "__metadata__")
    begin, end = entries[name]["data_offsets"]
    entries[name]["data_offsets"] = [begin + 2**62, end + 2**62]
    return with_header(entries, values)


def huge_shape(content: bytes) -> bytes:
    entries, values = header_of(content)
    name = next(name for name in entries if name != "__metadata__")
    entries[name]["shape"] = [2**31, 2**31, 2**31]
    return with_header(entries, values)


def packed(content: dict[str, Any], size: int) -> bytes:
    """A `.bin` file whose pickle unpacks to `size` bytes more than it needs."""
    stored, bomb = io.BytesIO(), io.BytesIO()
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as into:
        for name in archive.namelist():
            data = archive.read(name)
            into.writestr(name, data + bytes(size) if name.endswith("data.pkl") else data)
    return bomb.getvalue()


@pytest.fixture
def hostile(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, bytes | None]], str]:
    """Put a repo with such files at the end of a stream, run it, check that it is refused; return the message.

    None as a file's content leaves it out.
    """

    def run(files: dict[str, bytes | None]) -> str:
        folder = tmp_path / "tower"
        shutil.copytree(stage.folder / "towers" / next(iter(stage.towers)), folder)
        for name, content in files.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
        source, target = repo_name("hostile"), repo_name("target")
        HfApi().create_repo(source)
        HfApi().upload_folder(repo_id=source, folder_path=folder)
        first = next(iter(stage.towers.items()))
        models = [{"model": first[1], "name": first[0]}, {"model": source, "name": "hostile"}]
        recipe = stage.write(tmp_path, stage.recipe(target, models=models, evaluate=None))
        monkeypatch.chdir(folder)
        before = everything(tmp_path)
        status, _, errors = hubmerge("run", recipe)
        assert status == 4, errors
        assert "Traceback" not in errors
        assert "not foreseen" not in errors
        assert source in errors
        assert not HfApi().repo_exists(target)
        assert everything(tmp_path) == before
        return errors

    return run


def everything(folder: Path) -> set[str]:
    """All paths below a folder, those of the work folder left out."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "work" not in path.relative_to(folder).parts}


@pytest.fixture
def weights(stage: Stage) -> bytes:
    return (stage.folder / "towers" / next(iter(stage.towers)) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (overlapping, "overlaps"),
        (huge_offsets, "hole"),
        (huge_shape, "bytes, expected"),
        (lambda content: with_header(header_of(content)[0], b"", length=2 << 30), "the header claims 2147483648 bytes"),
        (lambda content: with_header(header_of(content)[0], b"", length=90_000_000), "the whole file has"),
    ],
    ids=["overlapping", "huge offsets", "huge shape", "header of 2 GB", "header longer than the file"],
)
def test_safetensors(hostile: Callable[..., str], weights: bytes, change: Callable[[bytes], bytes], told: str) -> None:
    message = hostile({WEIGHTS: change(weights)})
    assert told in message
    assert WEIGHTS in message


@pytest.mark.parametrize("protocol", [None, 2, 5])
def test_pickles_with_code(hostile: Callable[..., str], weights: bytes, tmp_path: Path, protocol: int | None) -> None:
    mark = tmp_path / "executed"
    held = {"weight": torch.zeros(2), "code": Payload(mark)}
    stored = io.BytesIO()
    if protocol is None:
        torch.save(held, stored)
    else:
        pickle.dump(held, stored, protocol)
    assert "pytorch_model.bin" in hostile({WEIGHTS: None, "pytorch_model.bin": stored.getvalue()})
    assert not mark.exists()


def test_a_bin_file_that_unpacks_to_far_more(hostile: Callable[..., str], weights: bytes, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(weights)
    bomb = packed(load_file(tmp_path / WEIGHTS), 64 << 20)
    (tmp_path / WEIGHTS).unlink()
    assert len(bomb) < 4 << 20
    message = hostile({WEIGHTS: None, "pytorch_model.bin": bomb})
    assert "is packed" in message


@pytest.mark.parametrize(
    "place",
    ["../outside.safetensors", "/etc/outside.safetensors", "a/../../outside.safetensors", "..\\outside.safetensors"],
)
def test_an_index_that_points_outside(hostile: Callable[..., str], weights: bytes, place: str) -> None:
    names = [name for name in header_of(weights)[0] if name != "__metadata__"]
    index = {"weight_map": dict.fromkeys(names, place)}
    message = hostile({WEIGHTS: None, "model.safetensors.index.json": json.dumps(index).encode()})
    assert "outside.safetensors" in message
    assert "inside the folder" in message


@pytest.mark.parametrize(
    "config",
    [
        b'{"model_type": ' + b"[" * 100_000,
        b"[]",
        b"\xff\xfe",
        b'{"model_type": "clip_vision_model", "num_hidden_layers": 1e12}',
        b'{"model_type": "../../x", "architectures": ["os.system"], "auto_map": {"AutoModel": "evil.Evil"}}',
    ],
)
def test_a_config_that_means_harm_as_base_model(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, config: bytes
) -> None:
    folder, mark = tmp_path / "base", tmp_path / "executed"
    shutil.copytree(stage.folder / "base", folder)
    (folder / "config.json").write_bytes(config)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    source, target = repo_name("base"), repo_name("target")
    HfApi().create_repo(source)
    HfApi().upload_folder(repo_id=source, folder_path=folder)
    recipe = stage.write(tmp_path, stage.recipe(target, base_model=source, evaluate=None))
    status, _, errors = hubmerge("run", recipe)
    assert status == 4, errors
    assert "Traceback" not in errors
    assert "not foreseen" not in errors
    assert not mark.exists()
    assert not HfApi().repo_exists(target)


@pytest.mark.parametrize("key", ["num_hidden_layers", "decoder_layers", "num_experts", "depths", "num_labels"])
@pytest.mark.parametrize("place", ["vision_config", "top"])
def test_a_config_that_claims_a_model_without_end(
    stage: Stage, hubmerge: Command, tmp_path: Path, place: str, key: str
) -> None:
    """Nothing is built from it, which would take hours and all memory."""
    folder = tmp_path / "base"
    shutil.copytree(stage.folder / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    (config if place == "top" else config[place])[key] = [3, 2**40] if key == "depths" else 2**40
    (folder / "config.json").write_text(json.dumps(config))
    recipe = stage.write(tmp_path, stage.recipe(None, base_model=str(folder), evaluate=None))
    status, _, errors = hubmerge("run", recipe)
    assert status == 4, errors
    assert f"claims {key} = " in errors


def test_a_card_shows_what_was_written_and_runs_nothing(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
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
    # The Hub checks cards, this one comes past it.
    commit_unchecked(base, "README.md", card.encode())
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


def commit_unchecked(repo: str, name: str, content: bytes) -> None:
    """Commit a file without asking the Hub first whether its front matter is right."""
    from base64 import b64encode

    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers

    lines = [
        {"key": "header", "value": {"summary": "card", "description": ""}},
        {"key": "file", "value": {"path": name, "content": b64encode(content).decode(), "encoding": "base64"}},
    ]
    answer = get_session().post(
        f"{HfApi().endpoint}/api/models/{repo}/commit/main",
        content="\n".join(map(json.dumps, lines)).encode(),
        headers={**build_hf_headers(), "Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200, answer.text


def outside_fences(markdown: str) -> str:
    """The lines that are not in a fenced block, as CommonMark reads fences."""
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
def test_recipes_from_the_net(hubmerge: Command, tmp_path: Path, text: str) -> None:
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
def test_metrics_that_are_code(
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


class Liar:
    """A Hub whose listings name files that lead out of the folder."""

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
def test_file_names_that_lead_out_of_the_folder(
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
    liar = Liar(local_hub.faults.app, pattern)
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
        assert load_file(tmp_path / "work" / "out" / "model-00002-of-00002.safetensors")


def test_what_the_tests_write_is_what_the_library_reads(weights: bytes) -> None:
    """The helpers above take a file apart and put it together: unchanged, it must stay a right one."""
    entries, values = header_of(weights)
    from safetensors.torch import load

    assert save(load(with_header(entries, values))) == save(load(weights))
