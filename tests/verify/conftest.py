"""A published stream of three steps, copies of it with changed files, and the command `verify`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.support.names import STATE_BRANCH
from tests.stage import Stage
from tests.verify.published import Command, Copy, Names, Verify


@pytest.fixture(scope="session")
def original(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    from hubmerge.cli.main import main

    folder = tmp_path_factory.mktemp("original")
    recipe = stage.write(folder, stage.recipe("local/original"))
    assert main(["run", str(recipe), "--quiet", "--work-dir", str(folder / "work")]) == 0
    return "local/original"


@pytest.fixture
def verify(hubmerge: Command, tmp_path: Path) -> Verify:
    return lambda release, *flags: hubmerge("verify", release, "--work-dir", tmp_path / "verify", *flags)


@pytest.fixture
def copy(original: str, repo_name: Names, tmp_path: Path) -> Copy:
    """Copy both branches of the published repo with changed files: `copy({"README.md": ...})`."""
    from huggingface_hub import HfApi  # reads HF_ENDPOINT when it is imported, which is set later

    def make(changes: dict[str, bytes], state_changes: dict[str, bytes] | None = None) -> str:
        api, repo = HfApi(), repo_name("copy")
        api.create_repo(repo)
        api.create_branch(repo, branch=STATE_BRANCH)
        for branch, changed in (("main", changes), (STATE_BRANCH, state_changes or {})):
            folder = Path(api.snapshot_download(original, revision=branch, local_dir=tmp_path / repo / branch))
            for name, content in changed.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            ignore = [".cache/**", ".gitattributes"]
            api.upload_folder(repo_id=repo, folder_path=folder, revision=branch, ignore_patterns=ignore)
        return repo

    return make
