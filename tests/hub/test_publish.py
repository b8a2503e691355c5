"""Target repos, steps as commits and tags, and rolling back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.errors import HubError, TargetError, TargetMovedError
from hubmerge.hub import publish, published, retry, rollback
from hubmerge.hub.permission import check_permission
from tests.conftest import READER_TOKEN
from tests.hub.conftest import Repo
from tests.reliability.conftest import RequestHook

MakeRepo = Callable[..., Repo]
NONE: frozenset[str] = frozenset()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write the files of a step and return their folder."""

    def write(step: int, **files: str) -> Path:
        place = tmp_path / f"step-{step}"
        place.mkdir()
        report = {"steps": [{"step": number} for number in range(1, step + 1)]}
        texts = {
            "hubmerge.json": json.dumps(report),
            "hubmerge.lock.yaml": f"lock {step}\n",
            "hubmerge.yaml": "recipe\n",
            "README.md": f"# Step {step}\n",
            **{name.replace("_", "."): text for name, text in files.items()},
        }
        for name, text in texts.items():
            (place / name).write_text(text)
        return place

    return write


def test_large_files_are_uploaded_at_the_same_time(
    make_repo: MakeRepo, request_hook: RequestHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first upload is answered only after four have begun."""
    monkeypatch.setattr(retry, "LARGE_UPLOAD_BYTES", 100)
    repo = make_repo({"README.md": b"# Mine"})
    contents = {f"part-{number}.safetensors": bytes([number]) * 200 for number in range(6)}
    begun: list[int] = []

    def count_begun() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not begun:
            if sum(one.startswith("PUT /lfs/") for one in request_hook.seen) >= 4:
                begun.append(4)
            time.sleep(0.01)

    request_hook.set("PUT /lfs/", count_begun)
    counted: list[float] = []
    monkeypatch.setattr(retry, "count_work", counted.append)
    commit = retry.create_commit(repo.name, [CommitOperationAdd(*one) for one in contents.items()], "six files")
    assert begun == [4]
    assert counted == [800, 400]
    there = {one.path for one in HfApi().list_repo_tree(repo.name, revision=commit)}
    assert set(contents) <= there


@pytest.fixture
def two_steps(folder: Callable[..., Path], repo_name: Callable[..., str]) -> tuple[str, list[str]]:
    """Publish two tagged steps, and return the repo and their commits."""
    repo = repo_name("target")
    parent = publish.create_target(repo, private=False)
    commits = []
    for step, extra in ((1, {"first_txt": "first", "both_txt": "one"}), (2, {"both_txt": "two"})):
        present = publish.read_target(repo).files
        parent = publish.publish_step(repo, folder(step, **extra), step=step, name="x", parent=parent, present=present)
        publish.tag_step(repo, step, parent)
        commits.append(parent)
    return repo, commits


def files_at(repo: str, revision: str) -> set[str]:
    return set(HfApi().list_repo_files(repo, revision=revision)) - {".gitattributes"}


def test_a_repo_that_does_not_exist_counts_as_empty(repo_name: Callable[..., str]) -> None:
    repo = repo_name("target")
    assert publish.read_target(repo) == publish.Target(repo, None, NONE, None, None, {})
    with pytest.raises(TargetError, match=f"target repo {repo} is empty"):
        publish.download_head(publish.read_target(repo))


def test_a_repo_with_files_of_the_web_page_counts_as_empty(make_repo: MakeRepo) -> None:
    repo = make_repo({"README.md": b"# Mine", "LICENSE": b"MIT"})
    target = publish.read_target(repo.name)
    assert (target.head, target.report, target.lock) == (repo.commit, None, None)


def test_a_repo_with_other_files_is_refused(make_repo: MakeRepo) -> None:
    repo = make_repo({"weights.bin": b"theirs"})
    with pytest.raises(TargetError, match=r"has files that hubmerge did not publish: weights\.bin") as raised:
        publish.read_target(repo.name)
    assert (raised.value.context.repo, raised.value.context.commit) == (repo.name, repo.commit)


@pytest.mark.parametrize("report", [b"[]", b"{}", b"{", b"[" * 100_000, b'{"steps": 1}'])
def test_a_report_that_is_none_is_refused(make_repo: MakeRepo, report: bytes) -> None:
    repo = make_repo({"hubmerge.json": report})
    with pytest.raises(TargetError, match=r"hubmerge\.json is not a report of published steps") as raised:
        publish.read_target(repo.name)
    assert raised.value.context.file == "hubmerge.json"


def test_a_report_that_is_no_text_is_refused(make_repo: MakeRepo) -> None:
    repo = make_repo({"hubmerge.json": b"\xff\xfe"})
    with pytest.raises(TargetError, match=r"hubmerge\.json is not UTF-8 text"):
        publish.read_target(repo.name)


def test_the_content_of_a_target(two_steps: tuple[str, list[str]]) -> None:
    repo, commits = two_steps
    target = publish.read_target(repo)
    assert target.head == commits[1]
    assert target.report == {"steps": [{"step": 1}, {"step": 2}]}
    assert target.lock == "lock 2\n"
    assert target.tags == {"step-01": commits[0], "step-02": commits[1]}
    assert (publish.download_head(target) / "both.txt").read_text() == "two"
    assert publish.step_url(repo, 2) == f"{HfApi().endpoint}/{repo}/tree/step-02"


def test_a_step_deletes_files_of_the_step_before(two_steps: tuple[str, list[str]]) -> None:
    repo, commits = two_steps
    assert files_at(repo, commits[0]) - files_at(repo, commits[1]) == {"first.txt"}


def test_a_commit_whose_response_was_lost_is_found_again(
    folder: Callable[..., Path], repo_name: Callable[..., str], request_hook: RequestHook, waits: list[float]
) -> None:
    repo = repo_name("target")
    parent = publish.create_target(repo, private=True)
    request_hook.lose_answer(f"POST /api/models/{repo}/commit/main")
    commit = publish.publish_step(repo, folder(1), step=1, name="x", parent=parent, present=NONE)
    history = [entry.commit_id for entry in HfApi().list_repo_commits(repo)]
    assert history[:2] == [commit, parent]
    assert len(waits) == 1


@pytest.mark.parametrize("status", [409, 412])
def test_a_commit_that_the_hub_refuses_for_a_moment_is_repeated(
    folder: Callable[..., Path],
    repo_name: Callable[..., str],
    request_hook: RequestHook,
    waits: list[float],
    status: int,
) -> None:
    repo = repo_name("target")
    parent = publish.create_target(repo, private=False)
    request_hook.refuse(f"POST /api/models/{repo}/commit/main", status=status)
    commit = publish.publish_step(repo, folder(1), step=1, name="x", parent=parent, present=NONE)
    assert publish.read_target(repo).head == commit
    assert len(waits) == 1


def test_a_target_that_another_writer_changed_is_left_alone(
    folder: Callable[..., Path], repo_name: Callable[..., str], make_repo: MakeRepo
) -> None:
    repo = repo_name("target")
    parent = publish.create_target(repo, private=False)
    theirs = make_repo({"LICENSE": b"theirs"}, name=repo)
    with pytest.raises(TargetMovedError, match=f"expected the newest commit {parent}, found {theirs.commit}") as raised:
        publish.publish_step(repo, folder(1), step=1, name="x", parent=parent, present=NONE)
    assert raised.value.code == "target-moved"
    assert (raised.value.context.repo, raised.value.context.commit) == (repo, theirs.commit)
    assert publish.read_target(repo).head == theirs.commit


def test_tags(two_steps: tuple[str, list[str]]) -> None:
    repo, commits = two_steps
    publish.tag_step(repo, 2, commits[1])
    with pytest.raises(TargetError, match=f"tag step-02 of {repo} names commit {commits[1]}"):
        publish.tag_step(repo, 2, commits[0])
    publish.delete_tag(repo, "step-02")
    publish.delete_tag(repo, "step-02")
    assert publish.read_target(repo).tags == {"step-01": commits[0]}


def test_tokens_that_cannot_publish(monkeypatch: pytest.MonkeyPatch) -> None:
    check_permission("local/x", exists=False)
    monkeypatch.setenv("HF_TOKEN", READER_TOKEN)
    with pytest.raises(HubError, match="publishing to local/x: this token is read-only"):
        check_permission("local/x", exists=False)
    monkeypatch.setenv("HF_TOKEN", "hf_nobodyhasthistoken")
    with pytest.raises(HubError, match="permission to publish to local/x: the Hub rejected the token") as raised:
        check_permission("local/x", exists=False)
    assert "hf_nobodyhasthistoken" not in str(raised.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"publishing to local/x on http.* needs a token"):
        check_permission("local/x", exists=False)


def test_a_published_step_has_metadata_files_and_digests(two_steps: tuple[str, list[str]]) -> None:
    repo, commits = two_steps
    step = published.read_published_step(repo, "step-01")
    assert (step.commit, step.revision) == (commits[0], "step-01")
    assert step.metadata_files["hubmerge.lock.yaml"] == "lock 1\n"
    assert set(step.metadata_files) == set(published.METADATA_FILES)
    assert set(step.files) - {".gitattributes"} == files_at(repo, commits[0])
    assert (published.download_published_step(step) / "first.txt").read_text() == "first"
    assert published.read_published_step(repo, None).commit == commits[1]


def test_a_revision_that_is_not_published(two_steps: tuple[str, list[str]], make_repo: MakeRepo) -> None:
    repo, _ = two_steps
    with pytest.raises(HubError, match=f"{repo} has no revision step-07") as raised:
        published.read_published_step(repo, "step-07")
    assert raised.value.hint == "published steps: step-01, step-02"
    other = make_repo({"hubmerge.yaml": b"recipe\n"})
    with pytest.raises(HubError, match=r"there is no hubmerge\.lock\.yaml, so hubmerge did not publish") as raised:
        published.read_published_step(other.name, None)
    assert (raised.value.context.commit, raised.value.context.file) == (other.commit, "hubmerge.lock.yaml")


def test_rolling_back_restores_files_and_deletes_later_tags(two_steps: tuple[str, list[str]]) -> None:
    repo, commits = two_steps
    large = CommitOperationAdd("model.safetensors", b"large")
    later = HfApi().create_commit(repo, [large], commit_message="step-03: merge y").oid
    publish.tag_step(repo, 3, later)
    commit = rollback.roll_back(repo, 1)
    assert files_at(repo, commit) == files_at(repo, commits[0])
    assert published.published_tags(repo) == {1: commits[0]}
    assert publish.read_target(repo).report == {"steps": [{"step": 1}]}
    assert [entry.commit_id for entry in HfApi().list_repo_commits(repo)][:2] == [commit, later]
    assert rollback.roll_back(repo, 1) == commit
    with pytest.raises(HubError, match=f"{repo} has no revision step-02"):
        rollback.roll_back(repo, 2)


def test_rolling_back_after_a_lost_response(
    two_steps: tuple[str, list[str]], request_hook: RequestHook, waits: list[float]
) -> None:
    repo, commits = two_steps
    request_hook.lose_answer(f"POST /api/models/{repo}/commit/main")
    commit = rollback.roll_back(repo, 1)
    assert [entry.commit_id for entry in HfApi().list_repo_commits(repo)][:2] == [commit, commits[1]]
    assert len(waits) == 1
