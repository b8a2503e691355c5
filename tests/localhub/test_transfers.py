"""Tests of uploads and downloads: large files, parts, ranges, commits and refused requests."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from hubmerge.localhub import LocalHub

PART_BYTES = 100_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), part_bytes=PART_BYTES) as hub:
        yield hub


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(hub.endpoint, token=hub.token)


@pytest.fixture
def repo(api: HfApi, repo_name: Callable[..., str]) -> str:
    return api.create_repo(repo_name()).repo_id


def ask(
    hub: LocalHub, method: str, address: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request without a client library."""
    if not address.startswith("http"):
        address = hub.endpoint + address
    request = urllib.request.Request(address, data=body, method=method)
    request.add_header("Authorization", f"Bearer {hub.token}")
    for name, value in (headers or {}).items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@pytest.mark.parametrize("size", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES, 3 * PART_BYTES + 17])
def test_large_files_are_uploaded_in_parts(api: HfApi, hub: LocalHub, repo: str, size: int, tmp_path: Path) -> None:
    content = Random(size).randbytes(size)
    api.upload_file(path_or_fileobj=content, path_in_repo="model.safetensors", repo_id=repo)
    down = Path(api.hf_hub_download(repo, "model.safetensors", cache_dir=tmp_path))
    assert down.read_bytes() == content
    assert down.resolve().name == hashlib.sha256(content).hexdigest()
    assert list(hub.site.temporary.folder.iterdir()) == []


def test_bytes_that_are_stored_are_not_sent_again(
    api: HfApi, hub: LocalHub, repo: str, repo_name: Callable[..., str]
) -> None:
    content = Random(1).randbytes(5000)
    batch = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256"}
    objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]
    address = f"/{repo}.git/info/lfs/objects/batch"
    body = json.dumps({**batch, "objects": objects}).encode()
    assert "actions" in json.loads(ask(hub, "POST", address, body)[2])["objects"][0]
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=repo)
    assert "actions" not in json.loads(ask(hub, "POST", address, body)[2])["objects"][0]


def test_uploads_with_unannounced_bytes_are_refused(hub: LocalHub, repo: str) -> None:
    announced = hashlib.sha256(b"right").hexdigest()
    body = json.dumps(
        {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": announced, "size": 5}]}
    ).encode()
    answer = json.loads(ask(hub, "POST", f"/{repo}.git/info/lfs/objects/batch", body)[2])["objects"][0]
    address = answer["actions"]["upload"]["href"]
    for wrong in (b"wrong", b"righ", b"right!"):
        assert ask(hub, "PUT", address, wrong)[0] == 400
    assert ask(hub, "PUT", address[:-1] + ("0" if address[-1] != "0" else "1"), b"right")[0] == 403
    verify = answer["actions"]["verify"]["href"]
    check = json.dumps({"oid": announced, "size": 5}).encode()
    assert ask(hub, "POST", verify, check)[0] == 404
    assert ask(hub, "PUT", address, b"right")[0] == 200
    assert ask(hub, "POST", verify, check)[0] == 200
    assert list(hub.site.temporary.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["a.bin", "a.txt"])
@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=990-5000", 206, 990, 999),
        ("bytes=990-", 206, 990, 999),
        ("bytes=-10", 206, 990, 999),
        ("bytes=-5000", 206, 0, 999),
        ("bytes=1000-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=5-2", 200, 0, 999),
        ("bytes=0-1,5-6", 200, 0, 999),
        ("lines=1-2", 200, 0, 999),
    ],
)
def test_ranges_are_served(
    api: HfApi, hub: LocalHub, repo: str, name: str, asked: str, status: int, first: int, last: int
) -> None:
    content = Random(2).randbytes(1000) if name == "a.bin" else b"0123456789" * 100
    commit = api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo)
    found, headers, body = ask(hub, "GET", f"/{repo}/resolve/main/{name}", headers={"Range": asked})
    assert found == status
    assert headers["x-repo-commit"] == commit.oid
    if status == 416:
        assert headers["content-range"] == "bytes */1000"
        return
    assert body == content[first : last + 1]
    assert headers["content-length"] == str(last - first + 1)
    if status == 206:
        assert headers["content-range"] == f"bytes {first}-{last}/1000"


def test_head_has_size_and_hash(api: HfApi, hub: LocalHub, repo: str) -> None:
    api.create_commit(
        repo, [CommitOperationAdd("a.bin", b"12345"), CommitOperationAdd("a.txt", b"123")], commit_message="a"
    )
    _, headers, body = ask(hub, "HEAD", f"/{repo}/resolve/main/a.bin")
    assert (headers["content-length"], headers["x-linked-size"], body) == ("5", "5", b"")
    assert headers["x-linked-etag"].strip('"') == hashlib.sha256(b"12345").hexdigest()
    _, headers, body = ask(hub, "HEAD", f"/{repo}/resolve/main/a.txt")
    assert headers["etag"].strip('"') == "d800886d9c86731ae5c4a62b0b77c437015e00d2"


def test_files_and_folders_have_git_names(api: HfApi, repo: str) -> None:
    """Compare the oids with those of `git`."""
    api.create_commit(
        repo,
        [CommitOperationAdd(f"x/{name}", f"{name}\n".encode()) for name in ("b/x", "b.c", "b0", "deep/er")],
        commit_message="files",
    )
    listed = api.list_repo_tree(repo)
    oids = {item.path: item.blob_id if isinstance(item, RepoFile) else item.tree_id for item in listed}
    assert oids["x"] == "30e8b2544940a7d6d3822621c41802e75aa8c373"


def test_files_are_copied_and_deleted(api: HfApi, repo: str, tmp_path: Path) -> None:
    api.create_commit(
        repo,
        [
            CommitOperationAdd("a.bin", b"large"),
            CommitOperationAdd("a.txt", b"small"),
            CommitOperationAdd("dir/one.txt", b"1"),
            CommitOperationAdd("dir/two.txt", b"2"),
        ],
        commit_message="start",
    )
    api.create_commit(
        repo,
        [
            CommitOperationCopy("a.bin", "copy/a.bin"),
            CommitOperationCopy("a.txt", "copy/a.txt"),
            CommitOperationDelete("dir/"),
            CommitOperationDelete("a.bin"),
        ],
        commit_message="rearrange",
    )
    assert sorted(api.list_repo_files(repo)) == [".gitattributes", "a.txt", "copy/a.bin", "copy/a.txt"]
    assert Path(api.hf_hub_download(repo, "copy/a.bin", cache_dir=tmp_path)).read_bytes() == b"large"


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", ".git/config", "a\\b", "x\0y", ""])
def test_invalid_paths_are_refused(hub: LocalHub, api: HfApi, repo: str, path: str) -> None:
    lines = [
        {"key": "header", "value": {"summary": "bad"}},
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    head = api.model_info(repo).sha
    assert ask(hub, "POST", f"/api/models/{repo}/commit/main", body)[0] == 400
    assert api.model_info(repo).sha == head


@pytest.mark.parametrize(
    "lines",
    [
        [b"not json"],
        [b'{"key": "header", "value": {"summary": "no end"'],
        [b'{"key": "file", "value": {"path": "a", "content": "eA==", "encoding": "base64"}}'],
        [b'{"key": "header", "value": {"summary": ""}}'],
        [b'{"key": "header", "value": {"summary": "x"}}', b'{"key": "magic", "value": {"path": "a"}}'],
        [b'{"key": "header", "value": {"summary": "x"}}', b'["a"]'],
        [
            b'{"key": "header", "value": {"summary": "x"}}',
            b'{"key": "file", "value": {"path": "a", "content": "%%%", "encoding": "base64"}}',
        ],
        [
            b'{"key": "header", "value": {"summary": "x"}}',
            b'{"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "' + b"0" * 64 + b'"}}',
        ],
    ],
)
def test_invalid_commits_are_refused(hub: LocalHub, api: HfApi, repo: str, lines: list[bytes]) -> None:
    head = api.model_info(repo).sha
    status, headers, _ = ask(hub, "POST", f"/api/models/{repo}/commit/main", b"\n".join(lines))
    assert status == 400
    assert headers["x-error-message"]
    assert api.model_info(repo).sha == head


def test_a_path_cannot_be_file_and_folder(api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a", repo_id=repo)
    with pytest.raises(HfHubHTTPError) as caught:
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a/b", repo_id=repo)
    assert caught.value.response.status_code == 400


def test_unchanged_files_create_no_commit(api: HfApi, repo: str) -> None:
    first = api.create_commit(
        repo, [CommitOperationAdd("a.bin", b"1"), CommitOperationAdd("a.txt", b"1")], commit_message="one"
    )
    again = api.create_commit(
        repo, [CommitOperationAdd("a.bin", b"1"), CommitOperationAdd("a.txt", b"1")], commit_message="two"
    )
    assert again.oid == first.oid == api.model_info(repo).sha


def test_pull_requests_are_branches_beside_main(api: HfApi, repo: str) -> None:
    head = api.model_info(repo).sha
    for number in (1, 2):
        done = api.create_commit(repo, [CommitOperationAdd("a.txt", b"x")], commit_message="propose", create_pr=True)
        assert done.pr_num == number
    assert api.model_info(repo).sha == head
    assert api.model_info(repo, revision="refs/pr/2").sha == done.oid
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests or []] == ["refs/pr/1", "refs/pr/2"]


def test_squash_keeps_files_and_removes_history(api: HfApi, repo: str) -> None:
    for number in range(3):
        api.upload_file(path_or_fileobj=f"{number}".encode(), path_in_repo=f"{number}.txt", repo_id=repo)
    files = api.list_repo_files(repo)
    api.super_squash_history(repo)
    assert api.list_repo_files(repo) == files
    assert len(api.list_repo_commits(repo)) == 1


def test_paths_info_has_last_commits(api: HfApi, repo: str) -> None:
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="d/a.bin", repo_id=repo)
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="d/b.txt", repo_id=repo)
    api.upload_file(path_or_fileobj=b"3", path_in_repo="c.txt", repo_id=repo)
    infos = {info.path: info for info in api.get_paths_info(repo, ["d", "d/a.bin", "gone"], expand=True)}
    assert infos.keys() == {"d", "d/a.bin"}
    for path, commit in (("d", second), ("d/a.bin", first)):
        last = infos[path].last_commit
        assert last is not None
        assert last["oid"] == commit.oid
