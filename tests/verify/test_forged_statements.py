"""Provenance statements that were forged: every change is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.support.names import BOM_FILE, STATEMENT_FILE
from hubmerge.verify.provenance import statement_differences
from tests.verify.published import Copy, Verify, published
from tests.verify.signed import build_of, key, original, resealed

__all__ = ["key", "original"]  # fixtures

Change = Callable[[dict[str, Any]], Any]
FORGERIES: dict[str, tuple[Change, str]] = {
    "a dependency at another commit": (
        lambda one: build_of(one)["resolvedDependencies"][1]["digest"].update(gitCommit="0" * 40),
        "its dependencies are not those of hubmerge.lock.yaml: ",
    ),
    "a dependency less": (
        lambda one: build_of(one)["resolvedDependencies"].pop(),
        "its dependencies are not those of hubmerge.lock.yaml: ",
    ),
    "another order": (
        lambda one: build_of(one)["resolvedDependencies"].reverse(),
        "its dependencies are not those of hubmerge.lock.yaml",
    ),
    "no dependencies": (
        lambda one: build_of(one).pop("resolvedDependencies"),
        "its dependencies are not those of hubmerge.lock.yaml: ",
    ),
    "another step": (
        lambda one: build_of(one)["externalParameters"].update(step=1),
        "it is the statement of step 1",
    ),
    "another method": (
        lambda one: build_of(one)["externalParameters"]["recipe"].update(merge_method="ties"),
        "its external parameters are not those of hubmerge.yaml",
    ),
    "another subject": (
        lambda one: one["subject"][0]["digest"].update(sha256="0" * 64),
        "its subjects are not the files of this step: ",
    ),
    "a subject more": (
        lambda one: one["subject"].append({"name": "x", "digest": {"sha256": "0" * 64}}),
        "its subjects are not the files of this step: x",
    ),
    "another chain": (
        lambda one: build_of(one)["internalParameters"].update(chain="x"),
        "predicate.buildDefinition.internalParameters.chain differs",
    ),
    "another builder": (
        lambda one: one["predicate"]["runDetails"]["builder"].update(id="urn:x"),
        "predicate.runDetails.builder.id differs",
    ),
    "another version": (
        lambda one: one["predicate"]["runDetails"]["builder"]["version"].update(hubmerge="9"),
        "predicate.runDetails.builder.version.hubmerge differs",
    ),
    "another build type": (lambda one: build_of(one).update(buildType="urn:x"), "its build type is not urn:hubmerge"),
    "another predicate": (lambda one: one.update(predicateType="x"), "expected https://in-toto.io/Statement/v1 with"),
    "no predicate": (lambda one: one.pop("predicate"), "its build type is not"),
    "an unknown key": (lambda one: one.update(note="x"), "note differs"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_statement_is_told_from_the_expected_one(original: str, name: str) -> None:
    expected, forged = (json.loads(published(original, STATEMENT_FILE)) for _ in range(2))
    assert list(statement_differences(forged, expected)) == []
    FORGERIES[name][0](forged)
    assert any(FORGERIES[name][1] in cause for cause in statement_differences(forged, expected))


def test_a_forged_statement_is_a_difference(original: str, verify: Verify, copy: Copy) -> None:
    """Every list and seal fits."""
    statement = json.loads(published(original, STATEMENT_FILE))
    FORGERIES["a dependency at another commit"][0](statement)
    status, output, _ = verify(copy(resealed(original, {STATEMENT_FILE: json.dumps(statement).encode()})), "--quick")
    assert status == 6
    differences = [line for line in output.splitlines() if "differs" in line and " signature:" not in line]
    name = build_of(statement)["resolvedDependencies"][1]["name"]
    cause = f"its dependencies are not those of hubmerge.lock.yaml: {name}"
    assert differences == [f"  differs  provenance: {STATEMENT_FILE}: {cause}"]


def test_a_statement_of_another_step_or_without_content_is_a_difference(
    original: str, verify: Verify, copy: Copy
) -> None:
    earlier = published(original, STATEMENT_FILE, "step-01")
    status, output, _ = verify(copy(resealed(original, {STATEMENT_FILE: earlier})), "--quick")
    assert status == 6
    assert f"differs  provenance: {STATEMENT_FILE}: it is the statement of step 1" in output
    content = b"[" * 5000
    status, output, _ = verify(copy(resealed(original, {STATEMENT_FILE: content, BOM_FILE: b"[]"})), "--quick")
    assert status == 6
    assert f"differs  provenance: {STATEMENT_FILE}: lists and objects are nested more than 64 deep" in output
    assert f"differs  provenance: {BOM_FILE}: not an object" in output
    repo = copy(resealed(original, {STATEMENT_FILE: None, BOM_FILE: None}))
    for name in (STATEMENT_FILE, BOM_FILE):
        HfApi().delete_file(name, repo_id=repo)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert f"differs  provenance: {STATEMENT_FILE} is missing" in output
    assert f"differs  provenance: {BOM_FILE} is missing" in output
