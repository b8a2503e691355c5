"""Runs that sign their steps, and the command that signs a step that exists."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

from hubmerge.cards.merge_cards import BEGIN
from hubmerge.support.names import SIGNATURE_FILE
from tests.provenance.keys import Key, make_key
from tests.run.test_files_of_others import content, put, recipe
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return make_key(tmp_path_factory.mktemp("keys"))


def files(repo: str, revision: str = "main") -> set[str]:
    return set(HfApi().list_repo_files(repo, revision=revision))


def tags(repo: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in HfApi().list_repo_refs(repo).tags}


def test_a_stream_is_signed_from_some_step_on_and_rolled_back(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, key: Key
) -> None:
    """Each signature belongs to one step: the next step replaces or removes it, a rollback brings it back."""
    repo, options = repo_name("target"), ("--quick", "--key", key.public)
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    assert SIGNATURE_FILE not in files(repo)
    before = tags(repo)["step-01"]
    # A signature by another key is replaced, and the tag moves even if a sign before was killed.
    assert hubmerge("sign", repo, "--key", make_key(tmp_path, "other").private)[0] == 0
    HfApi().delete_tag(repo, tag="step-01")
    HfApi().create_tag(repo, tag="step-01", revision=before)
    status, output, errors = hubmerge("sign", repo, "--key", key.private)
    assert status == 0, errors
    assert f"{repo}@step-01: 13 files signed" in output
    assert tags(repo)["step-01"] == HfApi().model_info(repo).sha != before
    assert hubmerge("verify", f"{repo}@step-01", *options)[0] == 0
    assert hubmerge("verify", repo, *options)[0] == 0

    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    assert SIGNATURE_FILE not in files(repo, "step-02")
    assert hubmerge("verify", f"{repo}@step-01", *options)[0] == 0

    signing = recipe(stage, tmp_path, repo, 3, sign={"key": str(key.private)})
    assert f"publish  every step to {repo}, signed with the key {key.private}" in hubmerge("plan", signing)[1]
    status, _, errors = hubmerge("run", signing, "--out", tmp_path / "out")
    assert status == 0, errors
    assert hubmerge("verify", repo, *options)[0] == 0
    signature = content(repo, SIGNATURE_FILE)
    assert (tmp_path / "out" / SIGNATURE_FILE).read_bytes() == signature
    assert hubmerge("run", signing)[0] == 0
    assert content(repo, SIGNATURE_FILE) == signature

    assert hubmerge("rollback", repo, "--to", "step-02")[0] == 0
    assert SIGNATURE_FILE not in files(repo)
    assert hubmerge("rollback", repo, "--to", "step-01")[0] == 0
    assert content(repo, SIGNATURE_FILE) == content(repo, SIGNATURE_FILE, "step-01")
    status, output, _ = hubmerge("verify", repo, *options)
    assert status == 7, output  # the state of step 1 is gone
    assert "same     signature: 13 files signed by the key " in output


def test_signing_changes_nothing_of_other_people(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, key: Key
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    tagged = tags(repo)
    text = content(repo, "README.md").decode().replace(BEGIN, f"# My own title\n\n{BEGIN}")
    put(repo, {"README.md": text.encode(), "NOTES.md": b"notes\n"})
    status, output, errors = hubmerge("sign", repo, "--key", key.private)
    assert status == 0, errors
    assert "not signed, because not files of the step: NOTES.md" in output
    assert tags(repo) == tagged
    assert "tag step-01 names an earlier commit with other files, which has no signature" in output
    status, output, _ = hubmerge("verify", repo, "--quick", "--key", key.public)
    assert status == 6
    assert [line.split(": ", 1)[1] for line in output.splitlines() if line.startswith("  differs")] == [
        "model.sig: NOTES.md is not signed",
        "NOTES.md is not in the list of files in the report",
        "NOTES.md is not a file of this step",
    ]
    # A file of other people under the name of the signature is neither replaced nor deleted.
    put(repo, {SIGNATURE_FILE: b"mine"})
    signing = recipe(stage, tmp_path, repo, 2, sign={"key": str(key.private)})
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, signing)
        assert status == 3
        assert f"has files that hubmerge did not publish: {SIGNATURE_FILE}" in errors
    status, _, errors = hubmerge("sign", repo, "--key", key.private)
    assert status == 3
    assert f"{SIGNATURE_FILE} is there and is not a signature of this step" in errors
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    assert content(repo, SIGNATURE_FILE) == b"mine"


def test_a_step_that_is_not_as_it_was_published_is_not_signed(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, key: Key
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    status, _, errors = hubmerge("sign", f"{repo}@step-01", "--key", key.private)
    assert status == 2
    assert "is not the newest commit" in errors
    config, report = content(repo, "config.json"), content(repo, "hubmerge.json")
    for name, changed, message in (
        ("config.json", config + b"\n", "config.json is not the file that the report lists"),
        ("hubmerge.json", report.replace(b'"opcm"', b'"ties"'), "hubmerge.json was changed after it was written"),
        ("hubmerge.json", b"{}", "format version None is unknown"),
    ):
        put(repo, {name: changed})
        status, _, errors = hubmerge("sign", repo, "--key", key.private)
        assert status == 3
        assert message in errors
        put(repo, {"config.json": config, "hubmerge.json": report})
    assert SIGNATURE_FILE not in files(repo)


def test_a_folder_is_signed(stage: Stage, hubmerge: Command, tmp_path: Path, key: Key) -> None:
    out = tmp_path / "out"
    path = stage.write(tmp_path, stage.recipe(None, entries=tuple(stage.towers)[:1], evaluate=None))
    assert hubmerge("run", path, "--out", out)[0] == 0
    assert hubmerge("sign", out, "--key", key.private)[0] == 0
    from model_signing import hashing, verifying

    def check() -> None:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key.public)
        ignored = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE])
        verifier.set_hashing_config(ignored).verify(out, out / SIGNATURE_FILE)

    check()
    assert hubmerge("sign", out, "--key", key.private)[0] == 0
    check()
    inside = Path(shutil.copy(key.private, out / "key.pem"))
    for target, file, message in (
        (out, inside, f"signing key {inside}: it is inside the signed folder"),
        (tmp_path / "none", key.private, "folder not found"),
        (tmp_path, key.private, "there is no hubmerge.json"),
    ):
        status, _, errors = hubmerge("sign", target, "--key", file)
        assert status == 2
        assert message in errors
    inside.unlink()
    (out / "config.json").write_text("{}")
    status, _, errors = hubmerge("sign", out, "--key", key.private)
    assert status == 2
    assert "config.json is not the file that the report lists" in errors
    assert hubmerge("sign", out)[0] == 2
    assert hubmerge("sign", out, "--key", key.private, "--keyless")[0] == 2


def test_a_machine_that_cannot_sign_is_found_before_the_merge(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, folder = repo_name("target"), tmp_path / "recipes"
    folder.mkdir()
    (tmp_path / ".git").mkdir()
    encrypted = make_key(tmp_path.parent, f"{tmp_path.name}-key", passphrase="correct horse")
    make_key(folder)
    monkeypatch.delenv("HUBMERGE_SIGNING_PASSPHRASE", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for sign, expected, message in (
        ({"key": "none.pem"}, 2, f"signing key {folder / 'none.pem'}: No such file"),
        ({"key": "key.pem"}, 2, "it is inside the git repository of the recipe"),
        ({"key": str(encrypted.private)}, 5, "it is encrypted, and HUBMERGE_SIGNING_PASSPHRASE is not set"),
        ("keyless", 5, "keyless signing needs the OIDC credentials of a CI job"),
    ):
        path = recipe(stage, folder, repo, 1, sign=sign)
        for command in ("plan", "run"):
            status, output, errors = hubmerge(command, path)
            assert status == expected, output
            assert message in errors
            assert "hint: " in errors
    assert not HfApi().repo_exists(repo)
    monkeypatch.setenv("HUBMERGE_SIGNING_PASSPHRASE", "correct horse")
    path = recipe(stage, folder, repo, 1, sign={"key": str(encrypted.private)})
    status, output, errors = hubmerge("run", path, "--json")
    assert status == 0, errors
    assert "correct horse" not in output + errors
    secret = encrypted.private.read_text().splitlines()[1]
    assert secret not in output + errors
    assert not any(secret.encode() in content(repo, name) for name in files(repo))
    assert hubmerge("verify", repo, "--quick", "--key", encrypted.public)[0] == 0


def test_a_key_in_the_output_folder_or_the_base_model_is_refused(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    """Small files of the base model, such as `key.txt`, are published with the merged model."""
    base, out = tmp_path / "base", tmp_path / "out"
    path = stage.write(tmp_path, stage.recipe(None, entries=tuple(stage.towers)[:1], evaluate=None))
    assert hubmerge("run", path, "--out", out)[0] == 0
    pair = make_key(out)
    status, _, errors = hubmerge(
        "run", recipe(stage, tmp_path, repo_name("target"), 1, sign={"key": str(pair.private)}), "--out", out
    )
    assert status == 2
    assert f"signing key {pair.private}: it is inside --out, {out}" in errors
    assert json.loads((out / "hubmerge.json").read_text())["steps"]
    snapshot_download(stage.base, local_dir=base)
    secret = shutil.copy(pair.private, base / "key.txt")
    publish = {"repo": repo_name("target"), "sign": {"key": str(secret)}}
    local = stage.recipe(None, entries=tuple(stage.towers)[:1], evaluate=None, base_model=str(base), publish=publish)
    status, _, errors = hubmerge("run", stage.write(tmp_path, local))
    assert status == 2
    assert f"signing key {secret}: it is inside the base model, {base}" in errors
