"""Retries, and the errors of requests that fail for good."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from hubmerge.errors import HubError, HubmergeError, MachineError
from hubmerge.hub import failures, retry
from hubmerge.hub.explain import explain
from hubmerge.hub.fetch import resolve_commit
from hubmerge.localhub.faults import Fault
from hubmerge.support import progress
from tests.hub.conftest import Repo
from tests.reliability.conftest import RequestHook

MakeRepo = Callable[..., Repo]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_transient_status_is_retried(
    make_repo: MakeRepo, request_hook: RequestHook, waits: list[float], status: int
) -> None:
    repo = make_repo({"a.txt": b"a"})
    request_hook.refuse(f"GET /api/models/{repo.name}", status=status)
    assert resolve_commit("model", repo.name, None) == repo.commit
    assert len(waits) == 1


def test_a_lost_response_is_retried(make_repo: MakeRepo, request_hook: RequestHook, waits: list[float]) -> None:
    repo = make_repo({"a.txt": b"a"})
    request_hook.lose_answer(f"GET /api/models/{repo.name}")
    assert resolve_commit("model", repo.name, None) == repo.commit
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("status", "cause"),
    [(401, "the Hub rejected the token"), (403, "has no permission"), (412, "another writer")],
)
def test_another_status_is_not_retried(
    make_repo: MakeRepo, request_hook: RequestHook, waits: list[float], status: int, cause: str
) -> None:
    repo = make_repo({"a.txt": b"a"})
    request_hook.refuse(f"GET /api/models/{repo.name}", status=status)
    with pytest.raises(HubError, match=f"model {repo.name} at revision main: .*{cause}") as raised:
        resolve_commit("model", repo.name, None)
    assert raised.value.context.repo == repo.name
    assert waits == []


def test_a_retry_says_what_is_waited_for() -> None:
    said: list[str] = []
    errors = iter([ConnectionResetError("reset"), ConnectionResetError("reset")])

    def request() -> str:
        for error in errors:
            raise error
        return "done"

    assert retry.call("the thing", request, sleep=lambda _: said.extend(progress.waits())) == "done"
    assert [text.rpartition(": ")[2] for text in said] == ["attempt 2 of 6", "attempt 3 of 6"]
    assert progress.waits() == ()


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("https://huggingface.co", "check the network, or run again later"),
        ("http://127.0.0.1:9", "check that a Hub runs at HF_ENDPOINT=http://127.0.0.1:9; "),
    ],
)
def test_the_hint_for_a_closed_port_names_the_variable(
    address: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubmerge.hub.explain.endpoint", lambda: address)
    assert (explain(ConnectionRefusedError("refused"), "model me/x").hint or "").startswith(hint)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:9"}, "HTTP_PROXY"),
        ({"all_proxy": "http://127.0.0.1:9"}, "all_proxy"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "HF_ENDPOINT"),
        ({"http_proxy": "http://127.0.0.1:9", "no_proxy": "hub.example"}, "HF_ENDPOINT"),
    ],
)
def test_the_hint_for_a_closed_port_names_the_proxy(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("hubmerge.hub.explain.endpoint", lambda: "http://hub.example:1")
    hint = explain(ConnectionRefusedError("refused"), "model me/x").hint or ""
    assert named in hint
    assert ("proxy that" in hint) == (named != "HF_ENDPOINT")


def test_a_limit_for_files_is_not_a_full_disk() -> None:
    found = failures.disk_error(OSError(errno.EFBIG, "File too large", "x"), "model.safetensors")
    assert found is not None
    assert found.hint == "raise the limit for files: ulimit -f unlimited"


def test_failures_that_last_end_in_an_error(
    make_repo: MakeRepo, disturb: Callable[..., None], waits: list[float]
) -> None:
    repo = make_repo({"a.txt": b"a"})
    disturb(1, 1, (Fault.BUSY,))
    with pytest.raises(HubError, match=r"the request to http://.* failed: .*503"):
        resolve_commit("model", repo.name, None)
    assert len(waits) == retry.RETRIES


def test_a_rate_limit_is_respected(make_repo: MakeRepo, disturb: Callable[..., None], waits: list[float]) -> None:
    repo = make_repo({"a.txt": b"a"})
    disturb(1, 1, (Fault.TOO_MANY,))
    with pytest.raises(HubError, match=r"rate limited \(HTTP 429\)") as raised:
        resolve_commit("model", repo.name, None)
    assert raised.value.hint == "run again in 1 seconds"
    assert waits == [1.5] * retry.RETRIES


def response_error(status: int, **headers: str) -> HfHubHTTPError:
    """Return the client's error for a response with this status and these headers."""
    http = importlib.import_module(failures.TRANSPORT_ERROR.__module__.partition(".")[0])
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = http.Response(status, headers=named, request=http.Request("GET", "http://there"))
    return HfHubHTTPError(str(status), response=response)


def test_both_headers_of_a_rate_limit_are_read() -> None:
    def wait(**headers: str) -> float | None:
        return failures.requested_wait(response_error(429, **headers))

    assert wait(Retry_After="7") == 7
    assert wait(RateLimit='"api";r=0;t=55') == 55
    assert wait(RateLimit='"api";r=12;t=55') is None
    assert wait(Retry_After="Wed, 21 Oct 2026 07:28:00 GMT") is None
    assert wait() is None


def test_a_rate_limit_without_a_time_says_run_again_later() -> None:
    assert explain(response_error(429), "the thing").hint == "run again later"


def wrapped(calls: list[int], inner: Exception, outer: Exception) -> Callable[[], Any]:
    """Return a function that fails with one error as the cause of another, and counts its calls."""

    def function() -> None:
        calls.append(1)
        try:
            raise inner
        except Exception as error:
            raise outer from error

    return function


@pytest.mark.parametrize(
    "outer", [FileNotFoundError("no data files"), LocalEntryNotFoundError("not in the cache"), RuntimeError("x")]
)
def test_a_broken_connection_is_retried_inside_any_other_error(outer: Exception) -> None:
    calls: list[int] = []
    slept: list[float] = []
    with pytest.raises(HubError, match=r"the thing: .* reset"):
        retry.call("the thing", wrapped(calls, ConnectionResetError("reset"), outer), sleep=slept.append)
    assert len(calls) == retry.RETRIES + 1
    assert slept == sorted(slept)
    assert 20 < sum(slept) < 40


def test_nothing_is_retried_after_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(retry, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(HubError):
        retry.call("the thing", wrapped(calls, ConnectionResetError("reset"), RuntimeError("x")))
    assert len(calls) == 1


@pytest.mark.parametrize(("number", "name"), [(28, None), (30, "/there/file"), (13, "/there/file")])
def test_a_disk_that_cannot_be_written_is_never_retried(number: int, name: str | None) -> None:
    calls: list[int] = []
    with pytest.raises(MachineError, match="the thing: cannot write to"):
        retry.call("the thing", wrapped(calls, OSError(number, "no", name), ConnectionResetError("reset")))
    assert len(calls) == 1


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError):
        retry.call("the thing", wrapped([], ValueError("mine"), KeyError("mine")))
    with pytest.raises(HubmergeError, match="mine"):
        retry.call("the thing", wrapped([], ConnectionResetError("reset"), HubmergeError("mine")))
