"""Tests of addresses of the Hub that this server does not have, and of methods that an address does not have."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hubmerge.localhub import LocalHub
from tests.localhub.hostile import ask, serve_users

REPO = "/api/models/eve/own"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.mark.parametrize("user", [None, "eve"])
@pytest.mark.parametrize(
    ("method", "address"),
    [
        *(("GET", f"{REPO}/{part}") for part in ("likers", "lfs-files", "leaderboard", "xet-read-token/main")),
        *(("POST", f"{REPO}/{part}") for part in ("duplicate", "like", "lfs-files/batch")),
        *(("GET", f"/api/spaces/eve/own/{part}") for part in ("runtime", "variables", "secrets", "logs/run")),
        *(("POST", f"/api/spaces/eve/own/{part}") for part in ("hardware", "pause", "restart", "sleeptime")),
        ("GET", "/api/models/never/made/likers"),
        ("GET", f"{REPO}/safetensors-metadata/model.safetensors.index.json"),
        ("POST", f"{REPO}/discussions/1/comment/abc/edit"),
        ("GET", "/api/models-tags-by-type"),
        ("GET", "/api/spaces/semantic-search?q=x"),
        ("GET", "/api/spaces/hardware"),
        ("GET", "/api/spaces/templates"),
        ("GET", "/api/spaces/zero-gpu/quota"),
        ("POST", "/api/spaces/zero-gpu/quota"),
        ("GET", "/api/datasets-tags-by-type"),
        ("GET", "/api/settings/webhooks"),
        ("POST", "/api/settings/webhooks"),
        ("DELETE", "/api/settings/webhooks/1"),
        ("GET", "/api/jobs/hardware"),
        ("POST", "/api/jobs/eve"),
        ("GET", "/api/jobs/eve/1/logs"),
        ("POST", "/api/scheduled-jobs/eve/1/suspend"),
        ("POST", "/api/buckets/eve/b"),
        ("GET", "/api/buckets/eve/b"),
        ("PUT", "/api/buckets/eve/b/settings"),
        ("GET", "/api/kernels/eve/own"),
        ("GET", "/api/kernels/eve/own/tree/main"),
        ("GET", "/api/daily_papers"),
        ("GET", "/api/papers/2401.00001"),
        ("GET", "/api/users/eve/followers"),
        ("GET", "/api/users/eve/likes"),
        ("GET", "/api/organizations/team/members"),
        ("PUT", "/api/organizations/team/settings/repositories"),
        ("HEAD", "/api/telemetry/hubmerge"),
        ("GET", "/api/agent-harnesses"),
        ("GET", "/api/resolve-cache/models/eve/own/1/a"),
        ("GET", "/api"),
        ("GET", "/api/anything/else"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/buckets/eve/b/resolve/a.txt"),
        ("GET", "/kernels/eve/own/resolve/main/a.txt"),
        ("GET", "/papers/2401.00001"),
        ("GET", "/collections/eve/list-0"),
        ("GET", "/settings/tokens"),
        ("POST", "/oauth/token"),
        ("GET", "/.well-known/openid-configuration"),
        ("GET", "/models"),
        ("GET", "/datasets"),
        ("GET", "/eve/own/info/refs?service=git-upload-pack"),
        ("GET", "/eve/own.git/info/refs?service=git-receive-pack"),
        ("POST", "/datasets/eve/own/git-upload-pack"),
        ("POST", "/eve/own.git/info/lfs/locks"),
        ("GET", "/eve/own/settings"),
        ("GET", "/eve/own/edit/main/README.md"),
        ("POST", "/datasets/eve/own/upload/main"),
    ],
)
def test_other_addresses_of_the_hub_answer_501_with_a_sentence(
    hub: LocalHub, method: str, address: str, user: str | None
) -> None:
    request = urllib.request.Request(hub.endpoint + address, method=method)
    if user:
        request.add_header("Authorization", f"Bearer hf_{user}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as error:
        assert error.code == 501
        assert error.headers["X-Error-Code"] is None
        said = error.headers["X-Error-Message"]
        assert said.startswith("This Hub does not serve ")
        assert f"({method} {address.partition('?')[0]})" in said
        assert not error.read() or said in ask(hub, method, address, user=user)[1]["error"]


def test_the_client_passes_the_sentence_on(hub: LocalHub) -> None:
    eve = HfApi(hub.endpoint, token="hf_eve")
    calls: list[Callable[[], object]] = [
        lambda: eve.duplicate_repo("eve/own", "eve/copy"),
        lambda: list(eve.list_lfs_files("eve/own")),
        lambda: eve.get_space_runtime("eve/own"),
        lambda: eve.list_webhooks(),
        lambda: list(eve.list_daily_papers()),
        lambda: list(eve.list_user_followers("eve")),
    ]
    for call in calls:
        with pytest.raises(HfHubHTTPError, match="This Hub does not serve") as caught:
            call()
        assert not isinstance(caught.value, RepositoryNotFoundError)
        assert caught.value.response.status_code == 501


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("DELETE", REPO, "GET, HEAD"),
        ("PATCH", "/api/collections", "GET, HEAD, POST"),
        ("GET", "/api/repos/create", "POST"),
        ("POST", "/api/repos/delete", "DELETE"),
        ("GET", f"{REPO}/commit/main", "POST"),
        ("GET", f"{REPO}/preupload/main", "POST"),
        ("PUT", f"{REPO}/tag/main", "DELETE, POST"),
        ("POST", f"{REPO}/tree/main/a/b", "GET, HEAD"),
        ("DELETE", f"{REPO}/discussions", "GET, HEAD, POST"),
        ("POST", "/eve/own/resolve/main/a.txt", "GET, HEAD"),
        ("PUT", "/datasets/eve/own/raw/main/a.txt", "GET, HEAD"),
        ("GET", "/eve/own.git/info/lfs/objects/batch", "POST"),
        ("GET", "/v1/shards", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/datasets/eve/own", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_named(hub: LocalHub, method: str, address: str, allowed: str) -> None:
    request = urllib.request.Request(hub.endpoint + address, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    with caught.value as error:
        assert error.code == 405
        assert error.headers["Allow"] == allowed
        assert error.headers["X-Error-Message"] == f"{method} is not served at this address. Use {allowed}."


@pytest.mark.parametrize(
    "address",
    [
        "/api/models/gpt2",
        "/api/models/gpt2/tree/main",
        "/api/datasets/squad/revision/main",
        "/gpt2/resolve/main/config.json",
        "/datasets/squad/resolve/main/a.txt",
        "/api/models/never/made",
        "/never/made/resolve/main/a.txt",
        "/never/made/raw/main/a.txt",
    ],
)
def test_a_missing_repo_is_still_missing(hub: LocalHub, address: str) -> None:
    assert ask(hub, "GET", address)[0] == 404
    assert ask(hub, "GET", address, user=None)[0] == 401
    eve = HfApi(hub.endpoint, token="hf_eve")
    for repo in ("gpt2", "never/made"):
        assert not eve.repo_exists(repo)
        assert not eve.file_exists(repo, "config.json")


@pytest.mark.parametrize("namespace", ["api", "datasets", "models", "v1", "papers", "collections"])
def test_names_that_the_addresses_need_are_reserved(hub: LocalHub, namespace: str) -> None:
    root = HfApi(hub.endpoint, token="hf_root")
    with pytest.raises(HfHubHTTPError, match="is reserved"):
        root.create_repo(f"{namespace}/model")
    repo = root.create_repo("root/to-move", exist_ok=True).repo_id
    with pytest.raises(HfHubHTTPError, match="is reserved"):
        root.move_repo(repo, f"{namespace}/model")


def test_head_and_raw_serve_the_default_branch_and_what_git_stores(hub: LocalHub, tmp_path: Path) -> None:
    eve = HfApi(hub.endpoint, token="hf_eve")
    repo = eve.create_repo("eve/raw").repo_id
    eve.upload_file(path_or_fileobj=b"small\n", path_in_repo="a.txt", repo_id=repo)
    head = eve.upload_file(path_or_fileobj=b"large", path_in_repo="d/w.bin", repo_id=repo).oid
    assert eve.model_info(repo, revision="HEAD").sha == head
    assert Path(eve.hf_hub_download(repo, "a.txt", revision="HEAD", cache_dir=tmp_path)).read_bytes() == b"small\n"
    assert len(eve.list_repo_commits(repo, revision="HEAD")) == 3
    for address, content in (
        ("raw/HEAD/a.txt", b"small\n"),
        ("raw/main/a.txt", b"small\n"),
        (f"raw/{head}/d/w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:"),
        ("resolve/HEAD/d/w.bin?download=true", b"large"),
    ):
        for method in ("GET", "HEAD"):
            request = urllib.request.Request(f"{hub.endpoint}/{repo}/{address}", method=method)
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
                assert answer.headers["X-Repo-Commit"] == head
                assert body.startswith(content) if method == "GET" else body == b""
                assert int(answer.headers["Content-Length"]) >= len(content)
                assert answer.headers["Content-Disposition"].startswith(
                    "attachment" if "download" in address else "inline"
                )
    assert ask(hub, "GET", f"/{repo}/raw/main/none.txt")[0] == 404
    with pytest.raises(HfHubHTTPError, match="Invalid ref name"):
        eve.create_branch(repo, branch="HEAD")
