"""Tests of discussions and pull requests, opened by users who may not write to the repo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.community import DiscussionComment
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from hubmerge.localhub import LocalHub
from tests.localhub.hostile import HEADER, ask, lines, serve_users


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


class People:
    def __init__(self, hub: LocalHub) -> None:
        self.ann = HfApi(hub.endpoint, token="hf_ann")
        self.bob = HfApi(hub.endpoint, token="hf_bob")
        self.eve = HfApi(hub.endpoint, token="hf_eve")
        self.reader = HfApi(hub.endpoint, token="hf_reader")


@pytest.fixture
def people(hub: LocalHub) -> People:
    return People(hub)


@pytest.fixture
def repo(people: People, request: pytest.FixtureRequest) -> str:
    name = people.ann.create_repo(f"ann/{abs(hash(request.node.name)):x}").repo_id
    people.ann.upload_file(path_or_fileobj=b"ours\n", path_in_repo="a.txt", repo_id=name)
    return name


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


@pytest.mark.parametrize("size", [900, 5500])
def test_a_large_file_is_proposed_without_write_permission(
    people: People, repo: str, size: int, tmp_path: Path
) -> None:
    content, head = Random(size).randbytes(size), people.ann.model_info(repo).sha
    done = people.eve.upload_file(path_or_fileobj=content, path_in_repo="w.bin", repo_id=repo, create_pr=True)
    assert done.pr_revision == "refs/pr/1"
    assert people.ann.model_info(repo).sha == head
    found = people.bob.hf_hub_download(repo, "w.bin", revision="refs/pr/1", cache_dir=tmp_path)
    assert Path(found).read_bytes() == content
    pull = people.ann.get_discussion_details(repo, 1)
    assert (pull.author, pull.status, pull.is_pull_request) == ("eve", "open", True)
    assert [event.type for event in pull.events] == ["commit"]
    people.ann.merge_pull_request(repo, 1)
    assert people.ann.get_discussion_details(repo, 1).status == "merged"
    merged = people.ann.hf_hub_download(repo, "w.bin", cache_dir=tmp_path / "merged")
    assert Path(merged).read_bytes() == content
    assert people.ann.list_repo_commits(repo)[0].title == "Upload w.bin with huggingface_hub (#1)"


UPLOAD = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi, constants
assert not constants.HF_HUB_DISABLE_XET
large = [CommitOperationAdd("large.bin", bytes(range(256)) * 1000), CommitOperationAdd("small.txt", b"small")]
done = HfApi().create_commit(sys.argv[1], large, commit_message="several", create_pr=True)
print(done.pr_revision, done.oid)
done = HfApi().upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2], create_pr=True, commit_message="folder")
print(done.pr_revision, done.oid)
other = HfApi(token="hf_bob")
other.upload_folder(repo_id=other.create_repo("bob/too").repo_id, folder_path=sys.argv[2])
"""


def test_files_and_a_folder_are_proposed_through_xet(hub: LocalHub, people: People, repo: str, tmp_path: Path) -> None:
    files = {"w.bin": Random(1).randbytes(300_000), "b.txt": b"text", "deep/er/c.safetensors": bytes(90_000)}
    for path, content in files.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(content)
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_eve", "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_DISABLE_XET", None)
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, repo, str(tmp_path / "up")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for number, said in ((1, done.stdout.split()[:2]), (2, done.stdout.split()[2:])):
        revision = f"refs/pr/{number}"
        assert said == [revision, people.ann.model_info(repo, revision=revision).sha]
    large = people.bob.hf_hub_download(repo, "large.bin", revision="refs/pr/1", cache_dir=tmp_path / "down")
    assert Path(large).read_bytes() == bytes(range(256)) * 1000
    for path, content in files.items():
        found = people.bob.hf_hub_download(repo, path, revision="refs/pr/2", cache_dir=tmp_path / "down")
        assert Path(found).read_bytes() == content
    pull = people.ann.get_discussion_details(repo, 2)
    assert (pull.title, pull.author, pull.status) == ("folder", "eve", "draft")


def test_only_its_author_and_writers_add_to_a_pull_request(people: People, repo: str) -> None:
    add = [CommitOperationAdd("b.bin", b"\0large"), CommitOperationAdd("b.txt", b"small")]
    assert people.eve.create_commit(repo, add, commit_message="propose", create_pr=True).pr_num == 1
    people.eve.upload_file(path_or_fileobj=b"\0more", path_in_repo="c.bin", repo_id=repo, revision="refs/pr/1")
    more = [CommitOperationAdd("c.bin", b"\0even more")]
    people.ann.create_commit(repo, [CommitOperationAdd("d", b"d")], commit_message="writer", revision="refs/pr/1")
    for other in (people.bob, people.reader):
        with pytest.raises(HfHubHTTPError) as caught:
            other.create_commit(repo, more, commit_message="no", revision="refs/pr/1")
        assert status_of(caught) == 403
    for revision in ("main", "refs/heads/main"):
        with pytest.raises(HfHubHTTPError) as caught:
            people.eve.create_commit(repo, more, commit_message="no", revision=revision)
        assert status_of(caught) == 403
    with pytest.raises(HfHubHTTPError) as caught:
        people.eve.merge_pull_request(repo, 1)
    assert status_of(caught) == 403
    people.ann.change_discussion_status(repo, 1, "closed")
    with pytest.raises(HfHubHTTPError) as caught:
        people.eve.create_commit(repo, more, commit_message="no", revision="refs/pr/1")
    assert status_of(caught) == 403


def test_a_proposal_that_cannot_be_applied_leaves_nothing(hub: LocalHub, people: People, repo: str) -> None:
    for body in (
        lines(HEADER, {"key": "deletedFile", "value": {"path": "none"}}),
        lines(HEADER, {"key": "file", "value": {"path": "a.txt/b", "content": ""}}),
        lines({"key": "header", "value": {"summary": "x", "parentCommit": "0" * 40}}),
        lines({"key": "header", "value": {"summary": "x" * 5000}}),
        lines({"key": "header", "value": {"summary": "x", "description": "x" * 70_000}}),
    ):
        assert ask(hub, "POST", f"/api/models/{repo}/commit/main?create_pr=1", body)[0] in (400, 404, 412)
    assert list(people.ann.get_repo_discussions(repo)) == []
    assert people.ann.list_repo_refs(repo, include_pull_requests=True).pull_requests == []


def test_gated_and_read_only_callers_propose_nothing(hub: LocalHub, people: People) -> None:
    add = [CommitOperationAdd("b.txt", b"small")]
    with pytest.raises(GatedRepoError):
        people.eve.create_commit("ann/gated", add, commit_message="x", create_pr=True)
    with pytest.raises(GatedRepoError):
        people.eve.create_pull_request("ann/gated", title="a title")
    for token in ("hf_reader", "hf_looks"):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(hub.endpoint, token=token).create_commit("ann/public", add, commit_message="x", create_pr=True)
        assert status_of(caught) == 403
    talks = HfApi(hub.endpoint, token="hf_talks")
    assert talks.create_pull_request("ann/public", title="a title").author == "talks"
    assert ask(hub, "POST", "/api/models/ann/public/commit/main", lines(HEADER), user="talks")[0] == 403
    assert ask(hub, "POST", "/api/models/ann/public/discussions", {"title": "abc"}, user=None)[0] == 401
    assert ask(hub, "GET", "/api/models/ann/gated/discussions", user=None)[0] == 401


def test_a_pull_request_is_opened_at_an_earlier_commit(people: People, repo: str) -> None:
    start = str(people.ann.model_info(repo).sha)
    people.ann.upload_file(path_or_fileobj=b"2", path_in_repo="b.txt", repo_id=repo)
    add = [CommitOperationAdd("c.txt", b"3")]
    people.eve.create_commit(repo, add, commit_message="x", create_pr=True, parent_commit=start[:7])
    assert sorted(people.ann.list_repo_files(repo, revision="refs/pr/1")) == [".gitattributes", "a.txt", "c.txt"]
    people.ann.merge_pull_request(repo, 1)
    assert sorted(people.ann.list_repo_files(repo)) == [".gitattributes", "a.txt", "b.txt", "c.txt"]


def test_files_changed_on_both_sides_are_a_conflict(people: People, repo: str) -> None:
    change = [CommitOperationAdd("a.txt", b"theirs\n"), CommitOperationAdd("same.txt", b"same")]
    people.eve.create_commit(repo, change, commit_message="theirs", create_pr=True)
    people.eve.create_commit(repo, [CommitOperationDelete("a.txt")], commit_message="delete", create_pr=True)
    people.ann.upload_file(path_or_fileobj=b"newer\n", path_in_repo="a.txt", repo_id=repo)
    people.ann.upload_file(path_or_fileobj=b"same", path_in_repo="same.txt", repo_id=repo)
    for number in (1, 2):
        assert people.ann.get_discussion_details(repo, number).conflicting_files == ["a.txt"]
        with pytest.raises(HfHubHTTPError, match=r"a\.txt") as caught:
            people.ann.merge_pull_request(repo, number)
        assert status_of(caught) == 409
    people.ann.delete_file("a.txt", repo)
    people.ann.merge_pull_request(repo, 2)
    with pytest.raises(HfHubHTTPError) as caught:
        people.ann.merge_pull_request(repo, 2)
    assert status_of(caught) == 409


def test_discussions_are_opened_answered_and_closed(hub: LocalHub, people: People, repo: str) -> None:
    found = people.eve.create_discussion(repo, title="A question", description="Why?")
    assert (found.num, found.is_pull_request, found.status) == (1, False, "open")
    answer = people.bob.comment_discussion(repo, 1, "Because. <b>")
    assert (answer.content, answer.author) == ("Because. <b>", "bob")
    assert people.eve.rename_discussion(repo, 1, "A better question").new_title == "A better question"
    with pytest.raises(HfHubHTTPError) as caught:
        people.bob.rename_discussion(repo, 1, "Mine")
    assert status_of(caught) == 403
    people.ann.change_discussion_status(repo, 1, "closed", comment="Done")
    pull = people.eve.create_pull_request(repo, title="A draft")
    assert (pull.num, pull.status, pull.target_branch) == (2, "draft", "refs/heads/main")
    details = people.ann.get_discussion_details(repo, 1)
    said = [event.content for event in details.events if isinstance(event, DiscussionComment)]
    assert said == ["Why?", "Because. <b>", "Done"]
    assert [item.num for item in people.ann.get_repo_discussions(repo)] == [2, 1]
    assert [item.num for item in people.ann.get_repo_discussions(repo, discussion_type="discussion")] == [1]
    assert [item.num for item in people.ann.get_repo_discussions(repo, discussion_status="closed")] == [1]
    assert [item.num for item in people.ann.get_repo_discussions(repo, author="bob")] == []
    with pytest.raises(HfHubHTTPError):
        people.ann.merge_pull_request(repo, 1)
    address = f"/api/models/{repo}/discussions"
    for body in ({}, {"title": ""}, {"title": 5}, {"title": "x" * 2000}, {"title": "x", "description": ["y"]}):
        assert ask(hub, "POST", address, body)[0] == 400
    for number in ("0", "99", "abc", "%C2%B2", "9" * 30):
        assert ask(hub, "GET", f"{address}/{number}")[0] == 404
    assert ask(hub, "POST", f"{address}/1/comment", {"comment": "x" * 70_000})[0] == 400


def test_pull_requests_without_a_record_are_shown(hub: LocalHub, people: People, repo: str) -> None:
    repository = hub.site.registry.find("model", repo)
    assert repository is not None
    head = repository.resolve("main")
    repository.write_ref("pr", "3", repository.write_change(head, [], title="Older", message="", author="eve"))
    assert [(item.num, item.title) for item in people.ann.get_repo_discussions(repo)] == [(3, "Older")]
    people.eve.create_commit(repo, [CommitOperationAdd("n", b"n")], commit_message="more", revision="refs/pr/3")
    assert people.eve.create_pull_request(repo, title="A draft").num == 4
