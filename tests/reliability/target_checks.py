"""Checks of a target repo: complete steps in all commits, tags and states."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from hubmerge.support.names import STATE_BRANCH

NAMED_AFTER_THE_REPO = {
    *("README.md", "hubmerge.yaml", "hubmerge.lock.yaml", "hubmerge.json", "hubmerge.intoto.json", "hubmerge.cdx.json"),
    *("report.html", ".gitattributes"),
}
PAPERS = {*NAMED_AFTER_THE_REPO, "config.json"} - {".gitattributes"}


def files_at(repo: str, revision: str) -> dict[str, str]:
    """Return every file of a revision with the digest of its content."""
    items = HfApi().list_repo_tree(repo, revision=revision, recursive=True)
    files = [item for item in items if isinstance(item, RepoFile)]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def report_at(repo: str, revision: str) -> dict[str, Any]:
    """Return the report of a published step."""
    report: dict[str, Any] = json.loads(Path(hf_hub_download(repo, "hubmerge.json", revision=revision)).read_text())
    return report


def steps_shown(repo: str) -> list[int]:
    """Check every commit, tag and state of a target repo, and return the steps on main, oldest first."""
    api = HfApi()
    try:
        commits = {commit.commit_id: commit.title for commit in reversed(list(api.list_repo_commits(repo)))}
        tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    except RepositoryNotFoundError:
        return []
    states = _states(repo)
    steps: dict[str, int] = {}
    newest: dict[str, Any] = {}
    for commit, title in commits.items():
        files = files_at(repo, commit)
        if set(files) <= {".gitattributes"}:
            continue
        assert set(files) >= PAPERS, f"{repo}@{commit} ({title}) is half a step: {sorted(files)}"
        newest = report_at(repo, commit)
        last = newest["steps"][-1]
        assert [step["step"] for step in newest["steps"]] == list(range(1, last["step"] + 1))
        assert title.startswith(f"step-{last['step']:02d}: ")
        weights = {name: digest for name, digest in files.items() if name.endswith(".safetensors")}
        assert weights == last["files"], f"{repo}@{commit} does not hold the weights that its report names"
        steps[commit] = last["step"]
    for tag, commit in tags.items():
        assert tag == f"step-{steps[commit]:02d}", f"{tag} names the commit of step {steps[commit]}"
    if newest:
        digest = newest["steps"][-1]["state_digest"]
        assert digest in states, f"the state of the newest step of {repo} is not on its branch"
    return list(steps.values())


def _states(repo: str) -> set[str]:
    """Return the digests of the published states after checking that each is complete."""
    try:
        files = files_at(repo, STATE_BRANCH)
    except RevisionNotFoundError:
        return set()
    digests = set()
    for folder in {path.partition("/")[0] for path in files if "/" in path}:
        manifest = Path(hf_hub_download(repo, f"{folder}/state.json", revision=STATE_BRANCH)).read_bytes()
        digest = hashlib.sha256(manifest).hexdigest()
        assert digest.startswith(folder)
        assert f"{folder}/accumulated.safetensors" in files
        digests.add(f"sha256:{digest}")
    return digests


def published(repo: str) -> dict[str, dict[str, str]]:
    """Return digests and reports of all tags, without the files that contain the name of the repo."""
    found = {}
    for ref in HfApi().list_repo_refs(repo).tags:
        files = files_at(repo, ref.name)
        found[ref.name] = {name: digest for name, digest in files.items() if name not in NAMED_AFTER_THE_REPO}
        report = {**report_at(repo, ref.name), "recipe_digest": None, "seal": None}
        listed = report["all_files"]
        report["all_files"] = {name: listed[name] for name in listed if name not in NAMED_AFTER_THE_REPO}
        found[ref.name]["report"] = json.dumps(report, sort_keys=True)
    return found


def leftovers(*folders: Path) -> list[Path]:
    """Return files and folders that only an interrupted run leaves."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith((".partial", ".outdated", ".fetched", ".incomplete", ".tmp"))
        or path.name.startswith("hubmerge-error-")
    ]


def everything(folder: Path) -> set[str]:
    """Return all paths below a folder, except those of the work folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "work" not in path.relative_to(folder).parts}
