"""Signatures, provenance statements and bills of materials of published steps, with real keys."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

from hubmerge.support.names import BOM_FILE, SIGNATURE_FILE, STATEMENT_FILE
from tests.checks import every
from tests.provenance.keys import Key, make_key
from tests.stage import Stage
from tests.verify.published import Command, Copy, Names, Verify, published
from tests.verify.signed import build_of, key, original, resealed

__all__ = ["key", "original"]  # fixtures


def test_signed_steps_verify(original: str, verify: Verify, key: Key, tmp_path: Path) -> None:
    status, output, _ = verify(original, "--key", key.public)
    assert status == 0, output
    lines = output.splitlines()
    number = len(set(HfApi().list_repo_files(original)) - {SIGNATURE_FILE, ".gitattributes"})
    assert lines[1].startswith(f"  same     signature: {number} files signed by the key ")
    assert lines[2].startswith("  same     provenance: the statement has the recipe, the lock (4 dependencies)")
    assert lines[1].endswith(key.public.name)
    status, output, _ = verify(f"{original}@step-01", "--key", key.public, "--quick")
    assert status == 0, output
    status, output, _ = verify(original, "--quick")
    assert status == 7
    assert "unknown  signature: model.sig lists the published files; who made it is not checked: add --key" in output
    # Everybody can check it with model-signing, too.
    from model_signing import hashing, verifying

    folder = Path(snapshot_download(original, local_dir=tmp_path / "copy"))
    signature = folder / SIGNATURE_FILE
    ignored = hashing.Config().set_ignored_paths(paths=[SIGNATURE_FILE, ".cache"])
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=key.public).set_hashing_config(ignored)
    verifier.verify(folder, signature)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*config\.json"):
        verifier.verify(folder, signature)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_file_is_not_the_signed_one(original: str, verify: Verify, copy: Copy, key: Key, name: str) -> None:
    repo = copy({name: published(original, name) + b"\n"})
    for options in ((), ("--key", key.public)):
        status, output, _ = verify(repo, "--quick", *options)
        assert status == 6
        assert f"differs  signature: model.sig: {name} is not the file that was signed" in output


def test_a_forger_cannot_sign_what_he_sealed_again(
    original: str, verify: Verify, copy: Copy, key: Key, tmp_path: Path
) -> None:
    """Report, statement and lists fit; the signature is by another key, or missing, or covers another file."""
    files = resealed(original, {"extra.bin": b"x"})
    status, output, _ = verify(copy(files), "--quick", "--key", key.public)
    assert status == 6
    assert "differs  signature: model.sig: extra.bin is not signed" in output
    repo = copy({})
    HfApi().delete_file("config.json", repo_id=repo)
    assert "model.sig: config.json was signed and is missing" in verify(repo, "--quick")[1]
    other = make_key(tmp_path, "other")
    status, output, _ = verify(original, "--quick", "--key", other.public)
    assert status == 6
    assert "differs  signature: model.sig: it is not a signature by the key" in output
    repo = copy({})
    HfApi().delete_file(SIGNATURE_FILE, repo_id=repo)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert "differs  signature: model.sig is missing: hubmerge.yaml asks for signed steps" in output
    status, output, _ = verify(repo, "--quick", "--key", key.public)
    assert status == 6
    assert "differs  signature: model.sig is missing: expected a signature by the key" in output


def test_a_copy_under_another_name_is_named(original: str, verify: Verify, copy: Copy, key: Key) -> None:
    """A fork has the signature of the original, which is valid: it says whose files these are."""
    _, output, _ = verify(copy({}), "--quick", "--key", key.public)
    (line,) = [line for line in output.splitlines() if " signature: " in line]
    assert line.startswith("  same     signature: ")
    assert line.endswith(f" as '{original}@step-02'")


def test_a_signature_of_another_step_is_found(original: str, verify: Verify, copy: Copy, key: Key) -> None:
    repo = copy({SIGNATURE_FILE: published(original, SIGNATURE_FILE, "step-01")})
    status, output, _ = verify(repo, "--quick", "--key", key.public)
    assert status == 6
    assert "differs  signature: model.sig: README.md is not the file that was signed" in output


def test_a_changed_bill_of_materials_is_a_difference(original: str, verify: Verify, copy: Copy) -> None:
    bill = json.loads(published(original, BOM_FILE))
    bill["components"][0]["version"] = "0" * 40
    status, output, _ = verify(copy(resealed(original, {BOM_FILE: json.dumps(bill).encode()})), "--quick")
    assert status == 6
    assert f"{BOM_FILE} does not agree with report and lock: components[0].version differs" in output


def test_the_files_have_the_forms_of_their_standards(original: str, stage: Stage) -> None:
    """The statement is one of in-toto with a SLSA provenance; the bill of materials is one of CycloneDX 1.6."""
    statement = json.loads(published(original, STATEMENT_FILE))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    dependencies = build_of(statement)["resolvedDependencies"]
    commits = {HfApi().model_info(repo).sha for repo in (stage.base, *list(stage.towers.values())[:2])}
    commits.add(HfApi().dataset_info(list(stage.datasets.values())[1]).sha)
    assert {one["digest"]["gitCommit"] for one in dependencies} == commits
    assert every(one["uri"].endswith(f"@{one['digest']['gitCommit']}") for one in dependencies)
    (weights,) = [one for one in statement["subject"] if one["name"] == "model.safetensors"]
    assert weights["digest"]["sha256"] == hashlib.sha256(published(original, "model.safetensors")).hexdigest()
    first = json.loads(published(original, STATEMENT_FILE, "step-01"))
    assert [one["name"] for one in build_of(first)["resolvedDependencies"]] == ["tiny-clip", next(iter(stage.towers))]
    bill = json.loads(published(original, BOM_FILE))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert model["modelCard"]["modelParameters"]["task"] == "zero-shot-image-classification"
    (metric,) = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["slice"]) == ("accuracy", list(stage.towers)[1])
    (data,) = [part for part in bill["components"] if part["type"] == "data"]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"ref": data["bom-ref"]}]
    assert data["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert {part["version"] for part in bill["components"]} == commits
    (root, *_) = bill["dependencies"]
    assert root == {"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in bill["components"]]}


def test_options_that_do_not_go_together_are_refused(original: str, verify: Verify, key: Key, tmp_path: Path) -> None:
    status, output, _ = verify(original, "--quick", "--identity", "x", "--identity-provider", "https://x")
    assert status == 6
    assert "it was made with a key, not by x (https://x)" in output
    for options, message in (
        (("--identity", "x"), "an identity is checked with its provider"),
        (("--identity-provider", "x"), "an identity is checked with its provider"),
        (("--key", key.public, "--identity", "x"), "a signature is by a key or by an identity"),
    ):
        status, _, errors = verify(original, "--quick", *options)
        assert status == 2
        assert message in errors
    for file, message in (
        (key.private, "this is a private key, expected a public key in PEM"),
        (tmp_path / "none.pub", "No such file"),
        (tmp_path, "Is a directory"),
    ):
        status, _, errors = verify(original, "--quick", "--key", file)
        assert status == 2
        assert message in errors


def test_local_sources_are_named_by_their_digests(
    stage: Stage, hubmerge: Command, verify: Verify, tmp_path: Path, repo_name: Names
) -> None:
    """The included task is part of the parameters."""
    repo, name = repo_name("target"), next(iter(stage.towers))
    snapshot_download(stage.towers[name], local_dir=tmp_path / "tower")
    snapshot_download(stage.datasets[name], repo_type="dataset", local_dir=tmp_path / "data")
    for folder in ("tower", "data"):
        shutil.rmtree(tmp_path / folder / ".cache")
    task = {"name": name, "kind": "zero-shot-image-classification", "dataset": {"path": "./data", "max_examples": 4}}
    (tmp_path / "task.yaml").write_text(json.dumps(task))
    recipe = stage.recipe(repo, models=[{"model": "./tower", "name": name}], evaluate=None)
    recipe["evaluate"] = {"tasks": [{"include": "task.yaml"}]}
    status, _, errors = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 0, errors
    build = build_of(json.loads(published(repo, STATEMENT_FILE)))
    assert build["externalParameters"]["recipe"]["evaluate"]["tasks"] == [task]
    found = {one["annotations"]["reference"]: one["digest"] for one in build["resolvedDependencies"]}
    assert {reference: list(digest) for reference, digest in found.items()} == {
        stage.base: ["gitCommit"],
        "./tower": ["sha256"],
        "./data": ["sha256"],
    }
    _, output, _ = verify(repo, "--quick")
    assert "same     provenance: the statement has the recipe, the lock (3 dependencies)" in output
    assert f"same     provenance: {BOM_FILE} agrees" in output
    assert "differs" not in output
