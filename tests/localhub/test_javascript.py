"""Tests of the calls of the JavaScript package `@huggingface/hub`.

With Node.js and the package installed (`npm install @huggingface/hub`; set NODE_PATH to the folder `node_modules`), the
package itself makes them. Its requests are also made from here, so that they are tested without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import get_session

from hubmerge.localhub import LocalHub

SCRIPT = Path(__file__).with_name("javascript_client.cjs")
COMMIT = 40
"""Length of the id of a commit, which the script prints for each commit."""
TITLES = [
    *("Deletes 1 files", "Delete g.bin", "several", "Add 1 files", "Add 3 files", "Add p.bin", "Add m.bin"),
    *("Add a.txt", "initial commit"),
]
FILES = [".gitattributes", "README.md", "c d.txt", "empty.txt", "f", "first.txt", "model.safetensors", "p.bin"]
PARTS = bytes(index * 11 % 256 for index in range(250_000))
POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(PARTS).hexdigest()}\nsize {len(PARTS)}\n"
)
EXPECTED: dict[str, Any] = {
    "whoAmI": "local",
    "deleteRepo missing": 404,
    "createRepo": "local/from-js",
    "createRepo again": 409,
    "createRepo dataset": "local/js-data",
    "createRepo space": "local/js-space",
    "uploadFile": COMMIT,
    "uploadFile large": COMMIT,
    "uploadFile in parts": COMMIT,
    "uploadFiles": COMMIT,
    "uploadFilesWithProgress": True,
    "commit": COMMIT,
    "deleteFile": COMMIT,
    "deleteFiles": COMMIT,
    "commit pull request": "/local/from-js/discussions/1",
    "listFiles": sorted([*FILES, "f/1.txt"]),
    "fileExists": True,
    "fileExists not": False,
    "downloadFile": "23",
    "downloadFile empty": "",
    "downloadFile missing": None,
    "downloadFile raw": POINTER,
    "downloadFile large": [250_000, True],
    "fileDownloadInfo": 250_000,
    "pathsInfo": [["f", "directory", None, "several"], ["p.bin", "file", 250_000, "Add p.bin"]],
    "parseSafetensorsMetadata": {"F32": 12},
    "downloadFileToCacheDir": "23",
    "snapshotDownload": FILES,
    "listCommits": TITLES,
    "countCommits": len(TITLES),
    "createBranch": None,
    "createBranch again": 409,
    "createBranch overwrite": 1,
    "createBranch empty": 0,
    "deleteBranch": None,
    "repoExists": True,
    "repoExists not": False,
    "checkRepoAccess": None,
    "checkRepoAccess not": 404,
    "modelInfo": ["local/from-js", ["safetensors", "license:mit"], 12, True, False],
    "datasetInfo": "local/js-data",
    "spaceInfo": "static",
    "listModels": [["local/from-js", "mit", 12]],
    "listDatasets": ["local/js-data"],
    "listSpaces": ["local/js-space"],
    "listCollections": ["JS"],
    "deleteCollection": None,
    "listJobs": 501,
    "createRepo bucket": 501,
    "deleteRepo": False,
}
"""Result of each call of the script, or the status of its error."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub(tmp_path_factory.mktemp("hub"), part_bytes=100_000) as hub:
        yield hub


def package() -> str | None:
    """Return the path of the JavaScript package, or None if it or Node.js is not installed."""
    node = shutil.which("node")
    if node is None:
        return None
    find = "console.log(require.resolve('@huggingface/hub'))"
    done = subprocess.run([node, "-e", find], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() or None


def test_the_package_makes_all_its_calls(hub: LocalHub, tmp_path: Path) -> None:
    path = package()
    if path is None:
        pytest.skip("needs Node.js and the package: npm install @huggingface/hub")
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token}
    done = subprocess.run(
        ["node", str(SCRIPT), path, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    found = {name: value["status"] if isinstance(value, dict) and "status" in value else value
             for name, value in results.items()}  # fmt: skip
    assert found.pop("createCollection")["slug"].startswith("local/js-")
    assert found == EXPECTED
    assert "This Hub does not serve jobs" in results["listJobs"]["error"]


class Requests:
    """Requests as the JavaScript package makes them."""

    def __init__(self, hub: LocalHub, repo: str) -> None:
        self.hub, self.repo = hub, repo

    def ask(
        self, method: str, address: str, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Send a request with the token."""
        headers = {"Authorization": f"Bearer {self.hub.token}", **(headers or {})}
        return get_session().request(method, self.hub.endpoint + address, content=content, headers=headers)

    def get(self, address: str, **headers: str) -> Any:
        return self.ask("GET", address, headers=headers)

    def post(self, address: str, body: object, **headers: str) -> Any:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.ask("POST", address, content, {"Content-Type": "application/json", **headers})
        answer.raise_for_status()
        return answer

    def commit(self, files: dict[str, bytes], *, deletions: tuple[str, ...] = (), query: str = "") -> dict[str, Any]:
        """Upload files and commit them, in the order of the package's requests."""
        samples = [
            {"path": path, "size": len(content), "sample": base64.b64encode(content[:512]).decode()}
            for path, content in files.items()
        ]
        asked = {"gitAttributes": None, "files": samples}
        modes = self.post(f"/api/models/{self.repo}/preupload/main{query}", asked).json()["files"]
        large = {mode["path"] for mode in modes if mode["uploadMode"] == "lfs"}
        self.send({hashlib.sha256(files[path]).hexdigest(): files[path] for path in large})
        lines: list[object] = [{"key": "header", "value": {"summary": "from here", "description": None}}]
        for path, content in files.items():
            value: dict[str, object] = {
                "path": path,
                "content": base64.b64encode(content).decode(),
                "encoding": "base64",
            }
            if path in large:
                value = {
                    "path": path,
                    "algo": "sha256",
                    "size": len(content),
                    "oid": hashlib.sha256(content).hexdigest(),
                }
            lines.append({"key": "lfsFile" if path in large else "file", "value": value})
        lines += [{"key": "deletedFile", "value": {"path": path}} for path in deletions]
        body = "\n".join(map(json.dumps, lines)).encode()
        kind = {"Content-Type": "application/x-ndjson"}
        answer: dict[str, Any] = self.post(f"/api/models/{self.repo}/commit/main{query}", body, **kind).json()
        return answer

    def send(self, files: dict[str, bytes]) -> None:
        """Send large files, in one piece or in parts."""
        kind = "application/vnd.git-lfs+json"
        body = {
            "operation": "upload",
            "transfers": ["basic", "multipart", "xet"],
            "hash_algo": "sha_256",
            "ref": {"name": "main"},
            "objects": [{"oid": oid, "size": len(content)} for oid, content in files.items()],
        }
        address = f"/{self.repo}.git/info/lfs/objects/batch"
        answer = self.post(address, body, **{"Content-Type": kind, "Accept": kind}).json()
        assert answer["transfer"] != "xet"
        for item in answer["objects"]:
            if "actions" not in item:
                continue
            upload, content = item["actions"]["upload"], files[item["oid"]]
            size = int(upload.get("header", {}).get("chunk_size", 0))
            parts = []
            for number in range(1, len(upload["header"])) if size else ():
                piece = content[(number - 1) * size : number * size]
                put = get_session().put(upload["header"][str(number)], content=piece)
                parts.append({"partNumber": number, "etag": put.headers["ETag"]})
            if parts:
                done = json.dumps({"oid": item["oid"], "parts": parts}).encode()
                sent = get_session().post(upload["href"], content=done, headers={"Content-Type": kind})
            else:
                sent = get_session().put(upload["href"], content=content)
            assert sent.status_code == 200


def test_the_requests_of_the_package_are_served(hub: LocalHub) -> None:
    requests = Requests(hub, "local/as-js")
    first = {"encoding": "base64", "path": "first.txt", "content": base64.b64encode(b"first").decode()}
    body = {"name": "as-js", "organization": "local", "type": "model", "license": "mit", "files": [first]}
    assert requests.post("/api/repos/create", body).json()["id"] == "local/as-js"
    content = {"a.txt": b"a", "empty.txt": b"", "s.bin": b"\0small", "p.bin": PARTS}
    assert len(requests.commit(content)["commitOid"]) == COMMIT
    assert requests.commit({}, deletions=("a.txt",))["success"] is True
    proposed = requests.commit({"d.bin": b"\0proposed"}, query="?create_pr=1")
    assert urlsplit(proposed["pullRequestUrl"]).path == "/local/as-js/discussions/1"

    assert requests.ask("HEAD", "/local/as-js/raw/main/p.bin").status_code == 200
    assert requests.ask("HEAD", "/local/as-js/raw/main/a.txt").status_code == 404
    for word, path, size in (
        ("resolve", "p.bin", 250_000),
        ("raw", "p.bin", len(POINTER)),
        ("resolve", "empty.txt", 0),
    ):
        probe = requests.get(f"/local/as-js/{word}/main/{path}", Range="bytes=0-0")
        assert probe.status_code == (206 if size else 200)
        assert probe.headers["Content-Range"].split("/")[1] == str(size)
        assert probe.headers["ETag"]
    missing = requests.get("/local/as-js/resolve/main/a.txt", Range="bytes=0-0")
    assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    check_lists(requests)


def check_lists(requests: Requests) -> None:
    """Check the commits, facts and branches of the repo, and the list of repos."""
    commits = requests.get("/api/models/local/as-js/commits/main?limit=1")
    assert commits.headers["X-Total-Count"] == "3"
    assert 'rel="next"' in commits.headers["Link"]
    info = requests.get("/api/models/local/as-js/revision/HEAD?expand=likes&expand=sha&expand=tags").json()
    assert (info["id"], info["likes"], info["tags"]) == ("local/as-js", 0, ["license:mit"])
    assert requests.get("/api/models/local/as-js?expand[]=likes").status_code == 200
    branch = "/api/models/local/as-js/branch/dev%2Fx"
    oldest = requests.get("/api/models/local/as-js/commits/main").json()[-1]["id"]
    requests.post(branch, {})
    requests.post(branch, {"overwrite": True})
    assert requests.get("/api/models/local/as-js/revision/dev%2Fx").json()["sha"] == info["sha"]
    requests.post(branch, {"startingPoint": oldest, "overwrite": True})
    assert requests.get("/api/models/local/as-js/revision/dev%2Fx").json()["sha"] == oldest
    requests.post("/api/models/local/as-js/branch/bare", {"emptyBranch": True})
    assert requests.get("/api/models/local/as-js/tree/bare").json() == []
    assert requests.ask("DELETE", branch).status_code == 200
    listed = requests.get("/api/models?author=local&limit=500&expand=safetensors&expand=cardData").json()
    assert listed[0]["cardData"] == {"license": "mit"}


@pytest.mark.parametrize(
    "changes",
    [
        {"files": 5},
        {"files": [{"path": "../x", "content": ""}]},
        {"files": [{"path": "x", "content": "%", "encoding": "base64"}]},
        {"files": [{"path": "x", "content": 5, "encoding": "base64"}]},
        {"files": [{"path": "x", "content": ""}, {"path": "x/y", "content": ""}]},
        {"license": ["mit"]},
    ],
)
def test_odd_first_files_create_no_repo(hub: LocalHub, changes: dict[str, object]) -> None:
    requests = Requests(hub, "local/odd")
    body = json.dumps({"name": "odd", "organization": "local", **changes}).encode()
    assert requests.ask("POST", "/api/repos/create", body).status_code == 400
    assert requests.get("/api/models/local/odd").status_code == 404
