"""Is what a target repo shows, and ever showed, made of whole steps?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from hubmerge.support.names import STATE_BRANCH

PAPERS = {"README.md", "config.json", "hubmerge.yaml", "hubmerge.lock.yaml", "hubmerge.json"}
NAMED_AFTER_THE_REPO = {"README.md", "hubmerge.yaml", "hubmerge.lock.yaml", "hubmerge.json", ".gitattributes"}


def files_at(repo: str, revision: str) -> dict[str, str]:
    """Every file of a revision and the digest of its content."""
    items = HfApi().list_repo_tree(repo, revision=revision, recursive=True)
    return {item.path: item.lfs.sha256 if item.lfs else item.blob_id for item in items if hasattr(item, "size")}


def report_at(repo: str, revision: str) -> dict[str, Any]:
    """The report of a published step."""
    report: dict[str, Any] = json.loads(Path(hf_hub_download(repo, "hubmerge.json", revision=revision)).read_text())
    return report


def steps_shown(repo: str) -> list[int]:
    """Check every commit, tag and state that a target repo holds; return the steps on main, the oldest first."""
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
    """The digests of the states on the branch, each checked to be complete."""
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
        assert f"{folder}/figures.json" in files
        digests.add(f"sha256:{digest}")
    return digests


def published(repo: str) -> dict[str, dict[str, str]]:
    """What must be equal however a stream came about: everything but what holds the repo's own name."""
    found = {}
    for ref in HfApi().list_repo_refs(repo).tags:
        files = files_at(repo, ref.name)
        found[ref.name] = {name: digest for name, digest in files.items() if name not in NAMED_AFTER_THE_REPO}
        report = {**report_at(repo, ref.name), "recipe_digest": None}
        found[ref.name]["report"] = json.dumps(report, sort_keys=True)
    return found


def leftovers(*folders: Path) -> list[Path]:
    """Files and folders that only an interrupted run leaves."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.name.endswith((".partial", ".outdated", ".fetched", ".incomplete", ".tmp"))
        or path.name.startswith("hubmerge-error-")
    ]


def everything(folder: Path) -> set[str]:
    """All paths below a folder, those of the work folder left out."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "work" not in path.relative_to(folder).parts}
