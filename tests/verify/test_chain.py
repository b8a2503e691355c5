"""The chain of all steps is recomputed: a forged state is found, and what cannot be checked is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants
from safetensors.torch import load_file, save_file

from hubmerge.report.report import RunReport, Scores
from hubmerge.support.names import STATE_BRANCH
from hubmerge.support.progress import SilentProgress
from hubmerge.verify import verify_step
from tests.stage import Stage
from tests.verify.published import Command, Copy, Names, Verify, published, report_files


def forge_state(repo: str, step: int, folder: Path, *, size: float) -> RunReport:
    """Replace a state by one with noise in a matrix; checksums, digest and seals fit. Return the new report."""
    api = HfApi()
    report = RunReport.from_json(published(repo, "hubmerge.json").decode())
    old = str(report.steps[step - 1].state_digest).removeprefix("sha256:")[:32]
    state = Path(api.snapshot_download(repo, revision=STATE_BRANCH, local_dir=folder)) / old
    tensors = load_file(state / "accumulated.safetensors")
    manifest = json.loads((state / "state.json").read_text())
    name = next(key for key in tensors if key.endswith("layers.1.mlp.fc1.weight"))
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tensors[name] += noise * (size * manifest["accumulated_norm"] / noise.norm())
    save_file(tensors, state / "accumulated.safetensors")
    digest = hashlib.sha256(tensors[name].reshape(-1).numpy().tobytes()).hexdigest()
    manifest["tensors"][name]["sha256"] = digest
    (state / "state.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    new = hashlib.sha256((state / "state.json").read_bytes()).hexdigest()
    api.upload_folder(repo_id=repo, folder_path=state, path_in_repo=new[:32], revision=STATE_BRANCH)
    api.delete_folder(old, repo_id=repo, revision=STATE_BRANCH)
    forged = report.with_step(dataclasses.replace(report.steps[step - 1], state_digest=f"sha256:{new}"))
    forged = dataclasses.replace(forged, all_files=report.all_files)
    operations = [CommitOperationAdd(name, content) for name, content in report_files(forged).items()]
    commit = api.create_commit(repo, operations, commit_message="Forge")
    tag = f"step-{len(report.steps):02d}"
    api.delete_tag(repo, tag=tag)
    api.create_tag(repo, tag=tag, revision=commit.oid)
    return forged


@pytest.fixture
def two_steps(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> str:
    """Publish a stream of two steps without tasks, with both states."""
    repo = repo_name("forged")
    recipe = stage.recipe(
        repo, entries=tuple(stage.towers)[:2], evaluate=None, publish={"repo": repo, "state": "every"}
    )
    assert hubmerge("run", stage.write(tmp_path, recipe), "--work-dir", tmp_path / "work")[0] == 0
    return repo


def test_a_forged_state_is_found_at_every_step_that_follows(
    two_steps: str, stage: Stage, hubmerge: Command, verify: Verify, tmp_path: Path
) -> None:
    forge_state(two_steps, 2, tmp_path / "state", size=0.1)
    recipe = stage.recipe(two_steps, evaluate=None, publish={"repo": two_steps, "state": "every"})
    status, _, errors = hubmerge("run", stage.write(tmp_path, recipe), "--work-dir", tmp_path / "other")
    assert status == 0, errors
    assert verify(f"{two_steps}@step-01")[0] == 0
    for step in (2, 3):
        status, output, _ = verify(f"{two_steps}@step-{step:02d}")
        assert status == 6, output
        assert "the state after step 2: recomputed, the difference is 1.0e-01 of the accumulated delta" in output
        assert "layers.1.mlp.fc1.weight' (at most 1e-10 is accepted)" in output


@pytest.mark.parametrize(("size", "status", "verdict"), [(1e-13, 0, "same"), (1e-8, 6, "differs")])
def test_states_are_compared_by_distance(
    two_steps: str, verify: Verify, tmp_path: Path, size: float, status: int, verdict: str
) -> None:
    """Another machine rounds differently, by much less than the tolerance."""
    forge_state(two_steps, 2, tmp_path / "state", size=size)
    found, output, _ = verify(two_steps)
    assert found == status, output
    assert f"{verdict:<8} state: the state after step 2: recomputed, the difference is {size:.1e} of " in output


def test_a_state_that_cannot_be_compared_is_unknown(two_steps: str, verify: Verify, tmp_path: Path) -> None:
    forged = forge_state(two_steps, 2, tmp_path / "state", size=0.1)
    HfApi().delete_branch(two_steps, branch=STATE_BRANCH)
    status, output, _ = verify(two_steps, "--json")
    events = [json.loads(line) for line in output.splitlines()]
    found = [event for event in events if event["event"] == "finding" and event["verdict"] != "same"]
    assert [event["detail"] for event in found] == [
        "the state after step 2 is not published, and the recomputed one has another digest: it cannot be compared"
    ]
    assert status == 7
    assert events[-1] == {"event": "done", "verified": False, "differences": 0, "unknown": 1}
    assert forged.steps[1].state_digest is not None


def test_statistics_of_earlier_steps_are_recomputed(original: str, verify: Verify, copy: Copy) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    changed = report.with_step(dataclasses.replace(report.steps[0], task_vector_norm=9.0))
    status, output, _ = verify(copy(report_files(changed)))
    assert status == 6
    assert "differs  report" not in output
    assert "differs  statistics: recomputed: steps[0].task_vector_norm differs" in output


def test_scores_of_earlier_steps_without_a_tag_are_computed_again(original: str, verify: Verify, copy: Copy) -> None:
    """With `publish: {steps: last}`, these steps never had a tag."""
    repo = copy({})
    status, output, errors = verify(repo)
    assert status == 0, output + errors
    assert "same     scores: recomputed: 1 score of step 1, which has no tag" in output
    assert "same     scores: recomputed: 2 scores of step 2, which has no tag" in output
    assert "verified (recomputed and compared): 0 differences, 0 checks not possible" in output
    status, output, _ = verify(repo, "--quick")
    assert status == 7
    assert "unknown  history: the scores of step 1, 2 cannot be checked: there is no tag step-01" in output
    assert "same     history" not in output


def test_a_changed_score_of_an_earlier_step_without_a_tag_is_found(original: str, verify: Verify, copy: Copy) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    first = report.steps[0]
    scores: Scores = {next(iter(first.scores)): {"accuracy": 0.777}}
    status, output, _ = verify(copy(report_files(report.with_step(dataclasses.replace(first, scores=scores)))))
    assert status == 6
    assert "differs  scores: recomputed: steps[0].scores." in output


def test_scores_of_earlier_checkpoints_are_recomputed(original: str, verify: Verify, copy: Copy) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    first = report.tasks[0].name
    changed = dataclasses.replace(report, own_scores={**report.own_scores, first: {"accuracy": 0.777}})
    status, output, _ = verify(copy({"hubmerge.json": changed.to_json().encode()}))
    assert status == 6
    assert f"own_scores.{first}.accuracy differs" in output


@pytest.fixture
def tagged(two_steps: str) -> str:
    """Add tags that look like those of steps."""
    api = HfApi()
    for tag, revision in (("step-3", "step-02"), ("step-²", "main"), ("step-002", "step-01"), ("step-0", "main")):
        api.create_tag(two_steps, tag=tag, revision=revision)
    return two_steps


def test_odd_tags_are_no_steps(tagged: str, verify: Verify) -> None:
    assert verify(tagged, "--quick")[0] == 0
    for tag, named, status in (("step-3", 2, 6), ("step-002", 1, 6), ("step-²", 2, 0), ("step-0", 2, 0)):
        found, output, errors = verify(f"{tagged}@{tag}", "--quick")
        assert found == status, output + errors
        assert f"step {named} at commit" in output
        assert (f"differs  tag: {tag} names a commit of step {named}" in output) == (status == 6)


def test_a_tag_that_points_to_another_step_is_found(two_steps: str, verify: Verify) -> None:
    api = HfApi()
    commits = {tag: api.model_info(two_steps, revision=tag).sha for tag in ("step-01", "step-02")}
    for tag, other in (("step-01", "step-02"), ("step-02", "step-01")):
        api.delete_tag(two_steps, tag=tag)
        api.create_tag(two_steps, tag=tag, revision=str(commits[other]))
        status, output, _ = verify(f"{two_steps}@{tag}", "--quick")
        assert status == 6
        assert f"differs  tag: {tag} names a commit of step {int(other[-1])}" in output
        status, output, _ = verify(two_steps, "--quick")
        assert status == 6
        found = "history: step-01 names a commit of step 2" if tag == "step-01" else "tag: step-02 names another commit"
        assert found in output
        api.delete_tag(two_steps, tag=tag)
        api.create_tag(two_steps, tag=tag, revision=str(commits[tag]))


def test_a_source_that_is_gone_leaves_its_step_unknown(
    stage: Stage, hubmerge: Command, verify: Verify, tmp_path: Path, repo_name: Names
) -> None:
    """The step after it is recomputed from the published state."""
    api, gone, repo = HfApi(), repo_name("gone"), repo_name("merged")
    first, second = tuple(stage.towers)[:2]
    folder = Path(api.snapshot_download(stage.towers[first], local_dir=tmp_path / "tower"))
    api.create_repo(gone)
    api.upload_folder(repo_id=gone, folder_path=folder, ignore_patterns=[".cache/**", ".gitattributes"])
    models = [{"model": gone, "name": "gone"}, {"model": stage.towers[second], "name": second}]
    recipe = stage.recipe(repo, evaluate=None, models=models)
    assert hubmerge("run", stage.write(tmp_path, recipe), "--work-dir", tmp_path / "work")[0] == 0
    api.delete_repo(gone)
    status, output, errors = verify(repo)
    assert status == 7, output + errors
    assert "unknown  recomputation: steps 1 to 1 cannot be recomputed: " in output
    assert "recomputed: the same bytes" in output


@pytest.mark.parametrize(
    "kind", [pytest.param("base", marks=pytest.mark.slow), pytest.param("tower", marks=pytest.mark.slow), "dataset"]
)
def test_a_damaged_file_in_the_cache_is_fetched_again(original: str, stage: Stage, verify: Verify, kind: str) -> None:
    """Its size is unchanged, and no time stamp shows the damage."""
    first = next(iter(stage.towers))
    repo = {"base": stage.base, "tower": stage.towers[first], "dataset": stage.datasets[first]}[kind]
    name = f"{'datasets' if kind == 'dataset' else 'models'}--{repo.replace('/', '--')}"
    blobs = [path for path in (Path(constants.HF_HUB_CACHE) / name / "blobs").iterdir() if path.is_file()]
    blob = max(blobs, key=lambda path: path.stat().st_size)
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    status, output, errors = verify(f"{original}@step-01")
    assert status == 0, output + errors
    assert "was damaged in the Hub cache: fetched again" in output
    assert blob.read_bytes() == good


def test_processes_that_verify_at_once_have_folders_of_their_own(tmp_path: Path) -> None:
    from hubmerge.verify.verifier import _own_folder

    with _own_folder(tmp_path) as one, _own_folder(tmp_path) as other:
        assert one != other
        (one / "a").write_text("a")
        with _own_folder(tmp_path):
            assert (one / "a").read_text() == "a"
    assert list(tmp_path.iterdir()) == []
    killed = tmp_path / "left"
    killed.mkdir()
    (tmp_path / "left.lock").touch()
    with _own_folder(tmp_path):
        assert not killed.exists()
    assert list(tmp_path.iterdir()) == []


def test_two_repos_verified_at_once_have_their_own_verdicts(two_steps: str, copy: Copy, tmp_path: Path) -> None:
    files = {"notes.txt": b"x"}
    bad = copy(files)
    with ThreadPoolExecutor(3) as pool:
        repos = (two_steps, bad, two_steps)
        verdicts = list(pool.map(lambda repo: verify_step(repo, None, tmp_path, SilentProgress()), repos))
    assert [verdict.verified for verdict in verdicts] == [True, False, True]
    assert verdicts[1].differences[0].detail.startswith("notes.txt is not in the list")
