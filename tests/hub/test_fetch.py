"""Commits of revisions, lists of files, ranges, headers and downloads."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from hubmerge.errors import CheckpointError, HubError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile
from hubmerge.hub.fetch import FIRST_BYTES
from tests.conftest import STRANGER_TOKEN
from tests.hub.conftest import Repo
from tests.reliability.conftest import RequestHook

MakeRepo = Callable[..., Repo]


def error_of(kind: str, repo: str, revision: str | None = None) -> HubError:
    """Return the error of resolving a revision."""
    with pytest.raises(HubError) as raised:
        fetch.resolve_commit(kind, repo, revision)
    return raised.value


def test_a_revision_resolves_to_its_commit(make_repo: MakeRepo) -> None:
    first = make_repo({"a.txt": b"a"})
    HfApi().create_tag(first.name, tag="v1")
    second = make_repo({"a.txt": b"b"}, name=first.name)
    assert fetch.resolve_commit("model", first.name, None) == second.commit
    assert fetch.resolve_commit("model", first.name, "v1") == first.commit
    assert fetch.resolve_commit("model", first.name, first.commit) == first.commit


def test_a_missing_revision(make_repo: MakeRepo) -> None:
    repo = make_repo({"a.txt": b"a"})
    assert fetch.find_commit("model", repo.name, "v9") is None
    error = error_of("model", repo.name, "v9")
    assert error.message == f"model {repo.name} at revision v9: the repo has no branch, tag or commit of this name"
    assert error.context.repo == repo.name


def test_a_missing_commit(make_repo: MakeRepo) -> None:
    error = error_of("model", make_repo({"a.txt": b"a"}).name, "0" * 40)
    assert "the commit no longer exists" in error.message
    assert error.context.commit == "0" * 40
    assert "hubmerge lock --update" in (error.hint or "")


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_missing_repo(repo_name: Callable[..., str], kind: str) -> None:
    name = repo_name("nowhere")
    error = error_of(kind, name)
    assert error.message.startswith(f"{kind} {name} at revision main: no repo of this name on {HfApi().endpoint}")
    assert error.context.repo == name


def test_a_private_repo(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo({"a.txt": b"a"}, private=True)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    assert "or it is private and this token cannot read it" in error_of("model", repo.name).message
    monkeypatch.delenv("HF_TOKEN")
    assert "not visible on" in error_of("model", repo.name).message


def test_a_gated_repo(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo({"a.txt": b"a"})
    HfApi().update_repo_settings(repo.name, gated="manual")
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    with pytest.raises(HubError, match="the repo is gated, and this token has no access to it") as raised:
        fetch.download(repo.name, repo.commit, [RemoteFile("a.txt", 1)])
    assert (raised.value.context.repo, raised.value.context.file) == (repo.name, "a.txt")


def test_a_repo_name_that_cannot_exist() -> None:
    assert "not a valid repo name" in error_of("model", "a/b--c").message


def test_files_are_listed_once_and_sorted(make_repo: MakeRepo, request_hook: RequestHook) -> None:
    repo = make_repo({"b.txt": b"bb", "a/c.txt": b"c", "a/b.txt": b""})
    files = (RemoteFile("a/b.txt", 0), RemoteFile("a/c.txt", 1), RemoteFile("b.txt", 2))
    attributes, *found = fetch.list_files(repo.name, repo.commit)
    assert attributes.path == ".gitattributes"
    assert tuple(found) == files
    assert fetch.list_files(repo.name, repo.commit, "a") == files[:2]
    request_hook.seen.clear()
    assert fetch.list_files(repo.name, repo.commit) == (attributes, *files)
    assert request_hook.seen == []


def test_a_missing_folder(make_repo: MakeRepo) -> None:
    repo = make_repo({"a.txt": b"a"})
    with pytest.raises(HubError, match=f"files in nowhere of model {repo.name} at .*: not found in the repo"):
        fetch.list_files(repo.name, repo.commit, "nowhere")


def test_an_adapter_is_recognized_by_its_config() -> None:
    assert fetch.is_adapter([RemoteFile("lora/adapter_config.json", 2)])
    assert not fetch.is_adapter([RemoteFile("config.json", 2)])


def test_downloads_are_cached(make_repo: MakeRepo, request_hook: RequestHook) -> None:
    repo = make_repo({"a/b.txt": b"content"})
    files = fetch.list_files(repo.name, repo.commit)
    assert not fetch.is_cached(repo.name, repo.commit, "a/b.txt")
    folder = fetch.download(repo.name, repo.commit, files)
    assert (folder / "a" / "b.txt").read_bytes() == b"content"
    assert fetch.is_cached(repo.name, repo.commit, "a/b.txt")
    request_hook.seen.clear()
    assert fetch.read_file(repo.name, repo.commit, files[-1]) == b"content"
    assert request_hook.seen == []


def test_a_download_of_another_size_is_refused(make_repo: MakeRepo) -> None:
    repo = make_repo({"a.txt": b"content"})
    with pytest.raises(HubError, match="7 bytes on disk, 8 bytes on the Hub") as raised:
        fetch.download(repo.name, repo.commit, [RemoteFile("a.txt", 8)])
    assert raised.value.context.commit == repo.commit


@pytest.mark.parametrize("digest", [{"sha256": "0" * 64}, {"blob_id": "0" * 40}])
def test_a_download_of_other_content_is_refused(make_repo: MakeRepo, digest: dict[str, str]) -> None:
    repo = make_repo({"a.txt": b"content"})
    with pytest.raises(HubError, match=r"a\.txt of model .* another .* than on the Hub"):
        fetch.download(repo.name, repo.commit, [RemoteFile("a.txt", 7, **digest)])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def delete(file: Path) -> None:
    file.unlink()


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [flip, truncate, empty, delete, make_folder])
@pytest.mark.parametrize("name", ["model.safetensors", "lora/adapter_config.json", "pytorch_model.bin", "vocab.txt"])
def test_a_damaged_file_of_the_cache_is_set_aside_and_downloaded_again(
    make_repo: MakeRepo, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], name: str
) -> None:
    content = repr((damage.__name__, name)).encode() * 100
    repo = make_repo({name: content})
    (file,) = [one for one in fetch.list_files(repo.name, repo.commit) if one.path == name]
    assert (file.sha256 is None) == (not name.startswith(("model", "pytorch")))
    blob = (fetch.download(repo.name, repo.commit, [file]) / name).resolve()
    damage(blob)
    assert (fetch.download(repo.name, repo.commit, [file]) / name).read_bytes() == content
    assert len(caplog.messages) == (damage is not delete)
    assert not [message for message in caplog.messages if f"set aside as {blob.name}.damaged" not in message]


@pytest.mark.parametrize("place", ["", "blobs", "snapshots", "snapshots/COMMIT", "snapshots/COMMIT/lora"])
def test_a_file_in_place_of_a_folder_of_the_cache_is_set_aside(
    make_repo: MakeRepo, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    repo = make_repo({"lora/a.txt": place.encode() + b"content"})
    (file,) = fetch.list_files(repo.name, repo.commit, "lora")
    folder = fetch.hub_cache() / f"models--{repo.name.replace('/', '--')}" / place.replace("COMMIT", repo.commit)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")
    assert fetch.read_file(repo.name, repo.commit, file) == place.encode() + b"content"
    assert len(caplog.messages) == 1
    assert folder.with_name(folder.name + ".damaged").read_text() == "not a folder"


def test_a_download_of_no_files_is_refused(make_repo: MakeRepo) -> None:
    repo = make_repo({"a.txt": b"a"})
    with pytest.raises(HubError, match="no files to download"):
        fetch.download(repo.name, repo.commit, [])


def test_unfinished_downloads_are_removed_unless_they_are_locked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    blobs, locks = tmp_path / "models--me--x" / "blobs", tmp_path / ".locks" / "models--me--x"
    blobs.mkdir(parents=True)
    locks.mkdir(parents=True)
    for name in ("aaaa.1234.incomplete", "bbbb.1234.incomplete", "cccc"):
        (blobs / name).write_bytes(b"part")
    with WeakFileLock(locks / "bbbb.lock"):
        fetch.remove_unfinished_downloads("me/x")
    assert sorted(path.name for path in blobs.iterdir()) == ["bbbb.1234.incomplete", "cccc"]


def test_a_range_has_exactly_its_bytes(make_repo: MakeRepo, request_hook: RequestHook, waits: list[float]) -> None:
    content = bytes(range(256)) * 40
    repo = make_repo({"model.safetensors": content})
    for offset, length in ((0, 10), (1000, 3000), (len(content) - 5, 5)):
        found = fetch.read_range(repo.name, repo.commit, "model.safetensors", offset, length)
        assert found == content[offset : offset + length]
    request_hook.refuse(f"GET /{repo.name}/resolve/", status=503)
    assert fetch.read_range(repo.name, repo.commit, "model.safetensors", 7, 3) == content[7:10]
    assert len(waits) == 1


def test_a_range_of_a_missing_file(make_repo: MakeRepo, waits: list[float]) -> None:
    repo = make_repo({"a.txt": b"a"})
    with pytest.raises(HubError, match=r"bytes 0-3 of b.txt of model .*: not found in the repo") as raised:
        fetch.read_range(repo.name, repo.commit, "b.txt", 0, 4)
    assert raised.value.context.file == "b.txt"
    assert waits == []


@pytest.mark.parametrize("padding", [0, 2 * FIRST_BYTES])
def test_a_header_takes_at_most_two_requests(make_repo: MakeRepo, request_hook: RequestHook, padding: int) -> None:
    header = b"{}" + b" " * padding
    content = struct.pack("<Q", len(header)) + header
    repo = make_repo({"model.safetensors": content})
    request_hook.seen.clear()
    file = RemoteFile("model.safetensors", len(content))
    assert fetch.read_header(repo.name, repo.commit, file) == content
    reads = [request for request in request_hook.seen if request.startswith(f"GET /{repo.name}/resolve/")]
    assert len(reads) == (1 if padding == 0 else 2)


def test_a_header_of_another_format_is_refused(make_repo: MakeRepo) -> None:
    repo = make_repo({"model.safetensors": b"PK\x03\x04" + b"\xff" * 20})
    with pytest.raises(CheckpointError, match=f"{repo.name}@{repo.commit[:12]}/model.safetensors"):
        fetch.read_header(repo.name, repo.commit, RemoteFile("model.safetensors", 24))
