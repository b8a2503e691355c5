"""A published step is verified, and whatever is tampered with is found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.report.report import RunReport
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import STATE_BRANCH
from tests.run.test_hub_alone import state_folders
from tests.run.test_runs import MERGED, files_at
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
Verify = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
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
def copy(original: str, repo_name: Names, tmp_path: Path) -> Callable[..., str]:
    """A copy of the published repo, both branches, with changed files: `copy({"README.md": ...})`."""

    def make(changes: dict[str, bytes], state_changes: dict[str, bytes] | None = None) -> str:
        api, repo = HfApi(), repo_name("copy")
        api.create_repo(repo)
        api.create_branch(repo, branch=STATE_BRANCH)
        for branch, changed in (("main", changes), (STATE_BRANCH, state_changes or {})):
            folder = Path(api.snapshot_download(original, revision=branch, local_dir=tmp_path / repo / branch))
            for name, content in changed.items():
                (folder / name).write_bytes(content)
            ignore = [".cache/**", ".gitattributes"]
            api.upload_folder(repo_id=repo, folder_path=folder, revision=branch, ignore_patterns=ignore)
        return repo

    return make


def published(repo: str, name: str, revision: str = "main") -> bytes:
    return Path(hf_hub_download(repo, name, revision=revision)).read_bytes()


def test_the_newest_step_is_verified_to_the_byte(original: str, verify: Verify) -> None:
    status, output, errors = verify(original)
    assert status == 0, errors + output
    assert "made again: the same bytes" in output
    assert "3 score(s) are the same" in output
    assert "differs " not in output
    assert output.rstrip().endswith("0 difference(s), 0 thing(s) that cannot be shown")


def test_the_first_step_needs_no_state(original: str, verify: Verify) -> None:
    status, output, _ = verify(f"{original}@step-01")
    assert status == 0
    assert "made again: the same bytes" in output


def test_a_step_whose_state_is_gone_is_verified_as_far_as_can_be(original: str, verify: Verify) -> None:
    status, output, _ = verify(f"{original}@step-02")
    assert status == 0
    assert "cannot be made again" in output
    assert "verified as far as can be shown (by digests, chain and lock)" in output


def test_quick_computes_nothing(original: str, verify: Verify) -> None:
    status, output, _ = verify(original, "--quick", "--json")
    assert status == 0
    events = [json.loads(line) for line in output.splitlines()]
    assert not [event for event in events if event["event"] == "stage"]
    assert events[-1] == {"event": "done", "verified": True, "differences": 0, "unknown": 0}


@pytest.mark.parametrize("quick", [True, False])
def test_a_tampered_weight_is_found(
    original: str, verify: Verify, copy: Callable[..., str], tmp_path: Path, quick: bool
) -> None:
    """A clumsy forger is found by the digest; one who seals the report anew, by making the step again."""
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
    """Its manifest without fetching the values; the values where the step is made again."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    folder = str(report.steps[step - 1].state_digest).removeprefix("sha256:")[:32]
    assert folder in state_folders(original)
    manifest = json.loads(published(original, f"{folder}/state.json", STATE_BRANCH))
    changed = json.dumps({**manifest, "scale": manifest["scale"] * 2}).encode()
    status, output, _ = verify(copy({}, {f"{folder}/state.json": changed}), "--quick")
    assert status == 6
    assert f"the state after step {step} is not the one" in output
    values = bytearray(published(original, f"{folder}/accumulated.safetensors", STATE_BRANCH))
    values[-3] ^= 64
    status, output, _ = verify(copy({}, {f"{folder}/accumulated.safetensors": bytes(values)}))
    assert status == 6
    assert f"the state after step {step}: " in output
    assert "is not what was written" in output


def test_a_tampered_score_is_found(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    last = report.steps[-1]
    task = next(iter(last.scores))
    scores = {**last.scores, task: {"accuracy": 0.999}}
    plain = dataclasses.replace(report, steps=(*report.steps[:-1], dataclasses.replace(last, scores=scores)))
    status, output, _ = verify(copy({"hubmerge.json": plain.to_json().encode()}), "--quick")
    assert status == 6
    assert "not what was sealed" in output
    sealed = report.with_step(dataclasses.replace(last, scores=scores))
    status, output, _ = verify(copy({"hubmerge.json": sealed.to_json().encode()}))
    assert status == 6
    assert f"scores.{task}" in output


@pytest.mark.parametrize("kind", ["base_scores", "own_scores"])
def test_a_tampered_score_beside_the_steps_is_found(
    original: str, verify: Verify, copy: Callable[..., str], kind: str
) -> None:
    """What the base model and the checkpoints alone score is not sealed: the card tells it, and so do earlier tags."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    task = report.tasks[0].name
    changed = {**getattr(report, kind), task: {"accuracy": 0.777}}
    repo = copy({"hubmerge.json": dataclasses.replace(report, **{kind: changed}).to_json().encode()})
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert "README.md does not agree with the report" in output
    first = RunReport.from_json(published(original, "hubmerge.json", "step-01").decode())
    earlier = dataclasses.replace(report.until(1), recipe_digest=first.recipe_digest)
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=earlier.to_json().encode())
    HfApi().create_tag(repo, tag="step-01")
    text = dataclasses.replace(report, **{kind: changed}).to_json().encode()
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=text)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert f"the report at step-01 has another value for {kind}.{task}" in output


def test_every_score_of_the_base_model_is_made_again(original: str, verify: Verify, copy: Callable[..., str]) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    task = report.tasks[0]
    assert task.step == 1
    changed = {**report.base_scores, task.name: {"accuracy": 0.777}}
    repo = copy({"hubmerge.json": dataclasses.replace(report, base_scores=changed).to_json().encode()})
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
def test_tampered_entries_of_the_lock_that_no_chain_digest_covers(
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


def test_what_is_no_published_step_is_refused(stage: Stage, verify: Verify) -> None:
    status, _, errors = verify(stage.base)
    assert status == 3
    assert "no step that hubmerge published" in errors


@pytest.mark.parametrize("revision", ["step-07", "stepp-02"])
def test_a_step_that_is_not_there_is_answered_with_those_that_are(original: str, verify: Verify, revision: str) -> None:
    status, _, errors = verify(f"{original}@{revision}")
    assert status == 3
    assert f"{original} has no {revision}\n" in errors
    assert "hint: the steps there are: step-01, step-02, step-03" in errors


def test_rollback_and_going_on_from_there(
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


def test_a_tampered_file_in_a_folder_that_came_along_is_found(
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
    assert f"{template} is not the base model's" in output
