"""What the Hub writes about a refused request is shown, whatever was requested and however it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubmerge.errors import HubError
from hubmerge.hub import (
    checked_files,
    datasets,
    fetch,
    folders,
    jobs,
    listing,
    permission,
    publish,
    published,
    retry,
    states,
    step_commits,
)
from hubmerge.hub.answers import MAX_CHARACTERS
from hubmerge.hub.client import api
from merge_recipes import DatasetReference, ModelCollection, ModelQuery
from tests.hub.conftest import Repo
from tests.reliability.conftest import RequestHook

MakeRepo = Callable[..., Repo]

SENTENCE = "Storage patterns tripped our systems. Please write to us."


@dataclass(frozen=True)
class Place:
    """A repo with a small and a large file, and a folder to publish."""

    repo: str
    commit: str
    folder: Path


@pytest.fixture
def place(make_repo: MakeRepo, tmp_path: Path) -> Place:
    fetch.list_files.cache_clear()
    repo = make_repo({"README.md": b"---\nlicense: mit\n---\n", "weights.bin": b"\0" * 100})
    folder = tmp_path / "step"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: isc\n---\n")
    (folder / "hubmerge.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\0weights of " + repo.name.encode())
    return Place(repo.name, repo.commit, folder)


def rows_beside(place: Place) -> str:
    """Create a dataset with the name of the repo, and return its commit."""
    api().create_repo(place.repo, repo_type="dataset", exist_ok=True)
    rows = api().upload_file(
        repo_id=place.repo, repo_type="dataset", path_in_repo="test.csv", path_or_fileobj=b"label\n1\n"
    )
    return rows.oid


def publish_it(place: Place) -> object:
    return publish.publish_step(
        place.repo, place.folder, step=1, name="a", parent=place.commit, present=frozenset({"weights.bin"})
    )


def large_file(place: Place) -> checked_files.RemoteFile:
    return checked_files.RemoteFile("weights.bin", 100)


CALLS: dict[str, tuple[str, Callable[[Place], object]]] = {
    "rows of a dataset": (
        "GET /api/datasets/.*/revision/",
        lambda place: datasets.load_rows(DatasetReference(path=place.repo), rows_beside(place)),
    ),
    "whoami": ("GET /api/whoami-v2", lambda place: permission.check_permission(place.repo, exists=True)),
    "permission": ("GET /api/models/.*/auth-check", lambda place: permission.check_permission(place.repo, exists=True)),
    "create repo": ("POST /api/repos/create", lambda place: publish.create_target(f"{place.repo}-new", private=False)),
    "create repo of a folder": (
        "POST /api/repos/create",
        lambda place: folders.publish_folder("model", f"{place.repo}-new", place.folder, title="x"),
    ),
    "target repo": ("GET /api/models/[^/]+/[^/]+$", lambda place: publish.read_target(place.repo)),
    "refs": ("GET /api/models/.*/refs", lambda place: published.published_tags(place.repo)),
    "revision": ("GET /api/models/", lambda place: fetch.resolve_commit("model", place.repo, "main")),
    "dataset": ("GET /api/datasets/", lambda place: fetch.resolve_commit("dataset", place.repo, None)),
    "listing": ("GET /api/models/.*/tree/", lambda place: fetch.list_files(place.repo, place.commit)),
    "head of a download": (
        "HEAD /.*/resolve/",
        lambda place: checked_files.download_checked(place.repo, place.commit, large_file(place)),
    ),
    "download": (
        "GET /.*/resolve/",
        lambda place: checked_files.download_checked(place.repo, place.commit, large_file(place)),
    ),
    "range": ("GET /.*/resolve/", lambda place: fetch.read_range(place.repo, place.commit, "weights.bin", 0, 10)),
    "search": ("GET /api/models", lambda _: listing.find_models(ModelQuery(query="local/*"))),
    "collection": ("GET /api/collections/", lambda _: listing.find_models(ModelCollection(collection="local/a-1"))),
    "card": ("POST /api/validate-yaml", publish_it),
    "preupload": ("POST /api/models/.*/preupload/", publish_it),
    "large files": ("POST /.*/info/lfs/objects/batch", publish_it),
    "upload": ("PUT /lfs/", publish_it),
    "verify of an upload": ("POST /.*/info/lfs/verify", publish_it),
    "commit": ("POST /api/models/.*/commit/", publish_it),
    "report of a commit": ("POST /api/models/.*/paths-info/", publish_it),
    "history": ("GET /api/models/.*/commits/", lambda place: step_commits.step_commits(place.repo, [1], [None])),
    "tag": ("POST /api/models/.*/tag/", lambda place: publish.tag_step(place.repo, 1, place.commit)),
    "delete tag": ("DELETE /api/models/.*/tag/", lambda place: publish.delete_tag(place.repo, "step-01")),
    "branch": (
        "POST /api/models/.*/branch/",
        lambda place: states.publish_state(place.repo, place.folder, "sha256:" + "0" * 64),
    ),
    "squash": (
        "POST /api/models/.*/super-squash/",
        lambda place: retry.call("squash", lambda: api().super_squash_history(place.repo), publishes=True),
    ),
    "status": ("GET /api/models/", lambda place: listing.repo_status("model", place.repo, None)),
    "author": ("GET /api/organizations/", lambda _: jobs.author_type("somebody")),
    "job": (
        "POST /api/scheduled-jobs/|POST /api/jobs/",
        lambda _: jobs.create_job(jobs.HubJob("image", ("true",), {}, "cpu-basic", "1h")),
    ),
}


def refused(request_hook: RequestHook, place: Place, name: str, status: int, body: bytes, header: str = "") -> HubError:
    pattern, function = CALLS[name]
    headers = {"x-error-message": header} if header else None
    request_hook.refuse(pattern, status=status, body=body, headers=headers)
    with pytest.raises(HubError) as raised:
        function(place)
    assert raised.value.hint
    return raised.value


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("name", CALLS)
def test_the_sentence_of_a_refusal_is_shown(
    place: Place, request_hook: RequestHook, waits: list[float], name: str, status: int
) -> None:
    body, header = json.dumps({"error": SENTENCE}).encode(), ""
    if name == "head of a download":  # such an answer has no body
        header = SENTENCE
    elif name == "card":
        body = json.dumps({"errors": [{"message": SENTENCE}], "warnings": []}).encode()
    error = refused(request_hook, place, name, status, body, header)
    assert error.message.endswith(f"; the Hub says: {SENTENCE}")
    assert waits == []


BODIES = {
    "error": {"error": SENTENCE},
    "list of errors": {"error": [SENTENCE, "More."]},
    "errors with messages": {"errors": [{"message": SENTENCE}]},
    "errors as texts": {"errors": [SENTENCE]},
    "message": {"message": SENTENCE},
    "error with a message": {"error": {"message": SENTENCE}},
    "description": {"error": "invalid_grant", "error_description": SENTENCE},
    "a text": SENTENCE,
    "a list": [SENTENCE],
}


@pytest.mark.parametrize("name", BODIES)
def test_every_form_of_a_body_is_read(place: Place, request_hook: RequestHook, waits: list[float], name: str) -> None:
    error = refused(request_hook, place, "commit", 403, json.dumps(BODIES[name]).encode())
    assert SENTENCE in error.message
    assert error.message.startswith(f"publishing step-01 to {place.repo}: ")
    assert waits == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SENTENCE.encode(), f"; the Hub says: {SENTENCE}"),
        (f"<Error><Code>Denied</Code><Message>{SENTENCE}</Message></Error>".encode(), f"; the Hub says: {SENTENCE}"),
        (b"<!doctype html><title>403</title>", "for this request"),
        (b"", "for this request"),
        (b"null", "for this request"),
        (b"17", "for this request"),
        (b'{"error": null, "errors": 3}', "for this request"),
        (b"[" * 100_000, "for this request"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_other_bodies_break_nothing(
    place: Place, request_hook: RequestHook, waits: list[float], body: bytes, expected: str
) -> None:
    error = refused(request_hook, place, "refs", 403, body)
    assert error.message.endswith(expected) or body.startswith(b"[")
    assert waits == []


def test_the_text_is_one_short_line_without_secrets(
    place: Place, request_hook: RequestHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBMERGE_WEBHOOK_SECRET", "a secret of mine")
    secret = "hf_" + "b" * 34
    text = f"first\n\x1b[31mline \u202e with {secret} and a secret of mine " + "x" * 10_000
    error = refused(request_hook, place, "refs", 403, json.dumps({"error": text}).encode())
    said = error.message.partition("the Hub says: ")[2]
    assert said.startswith(r"first \x1b[31mline \u202e with hf_*** and hf_*** xxx")
    assert len(said) == MAX_CHARACTERS
    assert secret not in error.message
    assert error.message.isprintable()


def test_a_long_sentence_hides_no_other(place: Place, request_hook: RequestHook) -> None:
    sentences = ["x" * 5000, *(f"Sentence {number}." for number in range(20))]
    body = json.dumps({"errors": [{"message": sentence} for sentence in sentences]}).encode()
    error = refused(request_hook, place, "refs", 403, body)
    assert error.message.endswith("xxx...; Sentence 0.; Sentence 1.; Sentence 2.; Sentence 3.")


def test_header_and_body_are_both_shown_and_nothing_twice(place: Place, request_hook: RequestHook) -> None:
    body = json.dumps({"error": "Body.", "message": "header."}).encode()
    error = refused(request_hook, place, "refs", 403, body, "Header.")
    assert error.message.endswith("; the Hub says: Header.; Body.")


def test_errors_of_single_large_files_are_shown(place: Place, request_hook: RequestHook, waits: list[float]) -> None:
    """The batch answers with status 200 and an error for each file."""
    files = [{"oid": "0" * 64, "size": 8, "error": {"code": 422, "message": SENTENCE}}]
    error = refused(request_hook, place, "large files", 200, json.dumps({"objects": files}).encode())
    assert error.message.startswith(f"publishing step-01 to {place.repo}: the Hub refused the request; the Hub says: ")
    assert SENTENCE in error.message
    assert waits == []


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (400, "the Hub refused the request (HTTP 400)"),
        (402, "the Hub asks for payment (HTTP 402)"),
        (404, "the Hub found nothing there (HTTP 404)"),
        (413, "too large for the Hub (HTTP 413)"),
        (422, "the Hub refused the request (HTTP 422)"),
        (451, "the Hub refused the request (HTTP 451)"),
    ],
)
def test_the_cause_names_the_status(place: Place, request_hook: RequestHook, status: int, cause: str) -> None:
    error = refused(request_hook, place, "commit", status, json.dumps({"error": SENTENCE}).encode())
    assert f": {cause}; the Hub says: {SENTENCE}" in error.message


@pytest.mark.parametrize("code", ["RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo"])
def test_an_answer_with_a_code_is_shown_too(place: Place, request_hook: RequestHook, code: str) -> None:
    pattern, function = CALLS["revision"]
    for sentence, ending in ((SENTENCE, f"; the Hub says: {SENTENCE}"), ("Repository not found", "")):
        body = json.dumps({"error": sentence}).encode()
        request_hook.refuse(pattern, status=404, body=body, headers={"x-error-code": code})
        with pytest.raises(HubError) as raised:
            function(place)
        assert raised.value.message.endswith(ending)
    assert ("the Hub says" in raised.value.message) == (code == "EntryNotFound")
