"""A published step is verified, and every change of its files is found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.report.report import RunReport, Scores
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import STATE_BRANCH
from hubmerge.support.progress import SilentProgress
from hubmerge.verify import Finding, Verdict, verify_step
from tests.reliability.target_checks import files_at
from tests.run.test_hub_alone import state_folders
from tests.run.test_runs import MERGED
from tests.stage import Stage
from tests.verify.published import Verify, published

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


def with_score(report: RunReport, kind: str, task: str) -> RunReport:
    """Return the report with the accuracy 0.777 for a task in `base_scores` or `own_scores`."""
    changed: Any = {kind: {**getattr(report, kind), task: {"accuracy": 0.777}}}
    return dataclasses.replace(report, **changed)


def test_the_newest_step_is_verified_byte_by_byte(original: str, verify: Verify) -> None:
    status, output, errors = verify(original)
    assert status == 0, errors + output
    assert "recomputed: the same bytes" in output
    assert "3 scores are the same" in output
    assert "differs " not in output
    assert output.rstrip().endswith("0 differences, 0 checks not possible")


def test_the_first_step_needs_no_state(original: str, verify: Verify) -> None:
    status, output, _ = verify(f"{original}@step-01")
    assert status == 0
    assert "recomputed: the same bytes" in output


def test_a_step_without_its_previous_state_is_recomputed_from_the_first_one(original: str, verify: Verify) -> None:
    """Its digest in the report proves the state after step 1, which is not published."""
    status, output, _ = verify(f"{original}@step-02")
    assert status == 0
    assert "recomputed from base model and checkpoints: 2 states have the digests in the report" in output
    status, output, _ = verify(f"{original}@step-02", "--quick")
    assert status == 7
    assert "unknown  state: the state after step 1 is not published or was removed" in output
    assert output.rstrip().endswith("partly verified (by digests, chain and lock): 0 differences, 1 check not possible")


def test_quick_recomputes_nothing(original: str, verify: Verify) -> None:
    status, output, _ = verify(original, "--quick", "--json")
    assert status == 0
    events = [json.loads(line) for line in output.splitlines()]
    assert not [event for event in events if event["event"] == "stage"]
    assert events[-1] == {"event": "done", "verified": True, "differences": 0, "unknown": 0}


def test_the_verdict_is_a_value(original: str, tmp_path: Path) -> None:
    verdict = verify_step(original, "step-03", tmp_path / "work", SilentProgress(), recompute=False)
    assert verdict.verified
    assert not verdict.recomputed
    assert (verdict.repo, verdict.step, verdict.differences, verdict.unknown) == (original, 3, (), ())
    assert verdict.commit == HfApi().repo_info(original, revision="step-03").sha
    subjects = {finding.subject for finding in verdict.findings}
    assert subjects == {"provenance", "report", "chain", "weights", "page", "card", "history", "state"}
    assert str(verdict).splitlines()[-1] == verdict.summary


def test_the_summary_counts_differences_and_checks() -> None:
    findings = (
        Finding("weights", "same", "3 files match their digests in the report"),
        Finding("card", "differs", "README.md does not agree with the report"),
        Finding("state", "unknown", "the state after step 1 is not published or was removed"),
        Finding("state", "unknown", "the state after step 2 is not published or was removed"),
    )
    verdict = Verdict("me/merged", 2, "0" * 40, findings, recomputed=False)
    assert not verdict.verified
    assert verdict.summary == "NOT verified (by digests, chain and lock): 1 difference, 2 checks not possible"
    without = Verdict("me/merged", 2, "0" * 40, findings[:1], recomputed=True)
    partly = Verdict("me/merged", 2, "0" * 40, (findings[0], findings[2]), recomputed=True)
    assert not partly.verified
    assert partly.summary == "partly verified (recomputed and compared): 0 differences, 1 check not possible"
    assert without.verified
    assert without.summary == "verified (recomputed and compared): 0 differences, 0 checks not possible"


@pytest.mark.parametrize("quick", [True, False])
def test_a_tampered_weight_is_found(
    original: str, verify: Verify, copy: Callable[..., str], tmp_path: Path, *, quick: bool
) -> None:
    """The digest finds it; if the digests of the report are changed too, the recomputed step does."""
    weights = load_file(hf_hub_download(original, MERGED))
    name = next(key for key in weights if key.endswith("layers.1.mlp.fc1.weight"))
    weights[name][3, 4] += 0.01
    save_file(weights, tmp_path / "weights", metadata={"format": "pt"})
    changes = {MERGED: (tmp_path / "weights").read_bytes()}
    if not quick:
        report = RunReport.from_json(published(original, "hubmerge.json").decode())
        files = {**report.steps[-1].files, MERGED: file_digest(tmp_path / "weights")}
        report = report.with_step(dataclasses.replace(report.steps[-1], files=files))
        changes["hubmerge.json"] = report.to_json().encode()
    status, output, _ = verify(copy(changes), *(["--quick"] if quick else []))
    assert status == 6
    assert (MERGED if quick else name) in output
    assert "NOT verified" in output


@pytest.mark.parametrize("step", [2, 3])
def test_a_tampered_state_is_found(original: str, verify: Verify, copy: Callable[..., str], step: int) -> None:
    """A changed manifest is found by its digest, changed values by the checksums of the tensors."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    folder = str(report.steps[step - 1].state_digest).removeprefix("sha256:")[:32]
    assert folder in state_folders(original)
    manifest = json.loads(published(original, f"{folder}/state.json", STATE_BRANCH))
    changed = json.dumps({**manifest, "scale": manifest["scale"] * 2}).encode()
    status, output, _ = verify(copy({}, {f"{folder}/state.json": changed}), "--quick")
    assert status == 6
    assert f"the state after step {step} does not match the digest in the report" in output
    values = bytearray(published(original, f"{folder}/accumulated.safetensors", STATE_BRANCH))
    values[-3] ^= 64
    status, output, _ = verify(copy({}, {f"{folder}/accumulated.safetensors": bytes(values)}))
    assert status == 6
    assert f"the state after step {step}: " in output
    assert "does not match its checksum" in output


def test_a_tampered_score_is_found(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    last = report.steps[-1]
    task = next(iter(last.scores))
    scores: Scores = {**last.scores, task: {"accuracy": 0.999}}
    unchained = dataclasses.replace(report, steps=(*report.steps[:-1], dataclasses.replace(last, scores=scores)))
    status, output, _ = verify(copy({"hubmerge.json": unchained.to_json().encode()}), "--quick")
    assert status == 6
    assert "does not match its content" in output
    changed = report.with_step(dataclasses.replace(last, scores=scores))
    status, output, _ = verify(copy({"hubmerge.json": changed.to_json().encode()}))
    assert status == 6
    assert f"scores.{task}" in output


@pytest.mark.parametrize("kind", ["base_scores", "own_scores"])
def test_a_tampered_score_beside_the_steps_is_found(
    original: str, verify: Verify, copy: Callable[..., str], kind: str
) -> None:
    """These scores are in no digest: card and earlier tags are compared with them."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    task = report.tasks[0].name
    changed = with_score(report, kind, task).to_json().encode()
    repo = copy({"hubmerge.json": changed})
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert "README.md does not agree with the report" in output
    first = RunReport.from_json(published(original, "hubmerge.json", "step-01").decode())
    earlier = dataclasses.replace(report.until(1), recipe_digest=first.recipe_digest)
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=earlier.to_json().encode())
    HfApi().create_tag(repo, tag="step-01")
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=changed)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert f"the report at step-01 has another value for {kind}.{task}" in output


def test_every_score_of_the_base_model_is_recomputed(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    task = report.tasks[0]
    assert task.step == 1
    repo = copy({"hubmerge.json": with_score(report, "base_scores", task.name).to_json().encode()})
    status, output, _ = verify(repo)
    assert status == 6
    assert f"base_scores.{task.name}.accuracy differs" in output


def test_a_tampered_card_is_found(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    card = published(original, "README.md").decode()
    value = next(line for line in card.splitlines() if line.strip().startswith("value:"))
    status, output, _ = verify(copy({"README.md": card.replace(value, "      value: 0.99").encode()}), "--quick")
    assert status == 6
    assert "README.md does not agree with the report" in output


def test_a_tampered_lock_is_found(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    lock = published(original, "hubmerge.lock.yaml").decode()
    commit = RunReport.from_json(published(original, "hubmerge.json").decode()).steps[1].commit
    status, output, _ = verify(copy({"hubmerge.lock.yaml": lock.replace(commit, "0" * 40).encode()}), "--quick")
    assert status == 6
    assert "chain digest of step 2" in output


@pytest.mark.parametrize("entry", ["reference", "base model", "dataset"])
def test_tampered_entries_of_the_lock_outside_of_the_chain_digest_are_found(
    original: str, verify: Verify, copy: Callable[..., str], entry: str
) -> None:
    lock = published(original, "hubmerge.lock.yaml").decode()
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    old, new = {
        "reference": (report.steps[1].reference, "somebody/else"),
        "base model": (report.base_model.reference, "somebody/else"),
        "dataset": (str(report.tasks[0].commit), "0" * 40),
    }[entry]
    assert old in lock
    status, output, _ = verify(copy({"hubmerge.lock.yaml": lock.replace(old, new).encode()}), "--quick")
    assert status == 6
    assert "hubmerge.lock.yaml" in output


def test_a_tampered_recipe_is_found(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    recipe = published(original, "hubmerge.yaml").decode() + "parameters: {alpha: 0.4}\n"
    status, output, _ = verify(copy({"hubmerge.yaml": recipe.encode()}), "--quick")
    assert status == 6
    assert "chain" in output


def test_a_repo_without_a_published_step_is_refused(stage: Stage, verify: Verify) -> None:
    status, _, errors = verify(stage.base)
    assert status == 3
    assert "hubmerge did not publish this revision" in errors


@pytest.mark.parametrize("revision", ["step-07", "stepp-02"])
def test_the_message_about_a_missing_step_lists_the_steps(original: str, verify: Verify, revision: str) -> None:
    status, _, errors = verify(f"{original}@{revision}")
    assert status == 3
    assert f"{original} has no revision {revision}\n" in errors
    assert "hint: published steps: step-01, step-02, step-03" in errors


def test_a_run_continues_from_a_rolled_back_step(
    stage: Stage, hubmerge: Command, verify: Verify, tmp_path: Path, repo_name: Names
) -> None:
    repo, names = repo_name("merged"), tuple(stage.towers)
    recipe = stage.write(tmp_path, stage.recipe(repo, publish={"repo": repo, "state": "every"}, evaluate=None))
    assert hubmerge("run", recipe)[0] == 0
    steps = {tag: files_at(repo, tag) for tag in ("step-01", "step-02", "step-03")}
    status, _, errors = hubmerge("rollback", repo, "--to", "step-01")
    assert status == 0, errors
    assert files_at(repo, "main") == steps["step-01"]
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01"]
    assert verify(repo)[0] == 0
    assert len(list(HfApi().list_repo_commits(repo))) == 5, "nothing is lost: the history keeps the later steps"
    assert hubmerge("rollback", repo, "--to", "step-07")[0] == 3
    assert hubmerge("run", recipe)[0] == 0
    assert {tag: files_at(repo, tag) for tag in steps} == steps
    assert len(names) == 3


def test_a_tampered_companion_file_is_found(
    stage: Stage, hubmerge: Command, verify: Verify, repo_name: Names, tmp_path: Path
) -> None:
    api, base, repo, template = HfApi(), repo_name("base"), repo_name("merged"), "additional_chat_templates/rag.jinja"
    api.create_repo(base)
    folder = Path(api.snapshot_download(stage.base, local_dir=tmp_path / "base"))
    api.upload_folder(repo_id=base, folder_path=folder, ignore_patterns=[".cache/**", ".gitattributes"])
    api.upload_file(repo_id=base, path_in_repo=template, path_or_fileobj=b"{{ documents }}")
    first = next(iter(stage.towers))
    recipe = stage.recipe(repo, entries=(first,), base_model=base, evaluate=None)
    status, _, errors = hubmerge("run", stage.write(tmp_path, recipe), "--quiet", "--work-dir", tmp_path / "work")
    assert status == 0, errors
    assert published(repo, template) == b"{{ documents }}"
    status, output, errors = verify(repo)
    assert status == 0, errors + output
    api.upload_file(repo_id=repo, path_in_repo=template, path_or_fileobj=b"{{ nothing }}")
    status, output, _ = verify(repo)
    assert status == 6
    assert f"{template} is not the file of the base model" in output
