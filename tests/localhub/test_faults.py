"""Tests of simulated slowness and faults."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.localhub import LocalHub
from hubmerge.localhub.faults import TRANSIENT, Fault, Faults

LARGE = bytes(range(256)) * 4000


async def nothing(*_: object) -> None:
    """Stand in for an application that is never called."""


def test_the_seed_determines_the_faults() -> None:
    first, again, other = Faults(nothing, 0.3, 1), Faults(nothing, 0.3, 1), Faults(nothing, 0.3, 2)
    drawn = [first.draw() for _ in range(2000)]
    assert drawn == [again.draw() for _ in range(2000)]
    assert drawn != [other.draw() for _ in range(2000)]
    counts = Counter(drawn)
    assert 500 < 2000 - counts.pop(None) < 700
    assert set(counts) == set(TRANSIENT)


def test_refused_commits_and_expired_tokens_reach_the_client(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        api.create_repo("local/model")
        hub.faults.set(1.0, kinds=[Fault.MOVED])
        with pytest.raises(HfHubHTTPError, match="412"):
            api.create_commit(
                "local/model", [CommitOperationAdd("a", b"a")], commit_message="a", parent_commit="0" * 40
            )
        assert hub.faults.drawn == {Fault.MOVED: 1}
        hub.faults.set(1.0, kinds=[Fault.EXPIRED])
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            api.model_info("local/model")
        hub.faults.set(0.0)
        assert [commit.title for commit in api.list_repo_commits("local/model")] == ["initial commit"]


def test_each_fault_reaches_the_client(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        api.create_repo("local/model")
        api.create_commit("local/model", [CommitOperationAdd("a.bin", LARGE)], commit_message="a")
    seen = Counter[str]()
    with LocalHub(tmp_path, faults=1.0, fault_seed=3) as hub:
        for _ in range(60):
            connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=60)
            connection.request("GET", "/local/model/resolve/main/a.bin")
            answer = connection.getresponse()
            announced = int(answer.headers["content-length"])
            try:
                body = answer.read()
            except http.client.IncompleteRead as error:
                body = error.partial
            answer.close()
            connection.close()
            assert (answer.getheader("retry-after") is not None) == (answer.status == 429)
            outcomes = {
                (len(LARGE) // 2, len(LARGE)): "dropped",
                (len(LARGE) // 2, len(LARGE) // 2): "short",
                (len(LARGE), len(LARGE)): "slow",
            }
            seen[outcomes[len(body), announced] if answer.status == 200 else str(answer.status)] += 1
            if len(seen) == 6:
                break
    assert set(seen) == {"429", "500", "503", "dropped", "short", "slow"}


def test_a_commit_stays_if_its_answer_is_lost(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as hub:
        HfApi(hub.endpoint, token=hub.token).create_repo("local/model")
    with LocalHub(tmp_path, faults=0.15, fault_seed=11) as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        acknowledged, failed = [], 0
        for number in range(12):
            try:
                done = api.create_commit(
                    "local/model", [CommitOperationAdd(f"{number}.txt", b"x")], commit_message=f"{number}"
                )
            except Exception:  # Each layer of the client has its own errors.
                failed += 1
            else:
                acknowledged.append(done.oid)
    with LocalHub(tmp_path) as hub:
        commits = [commit.commit_id for commit in HfApi(hub.endpoint, token=hub.token).list_repo_commits("local/model")]
    assert acknowledged
    assert failed
    assert set(acknowledged) <= set(commits)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_throttle_limits_the_bandwidth(tmp_path: Path, direction: str) -> None:
    with LocalHub(tmp_path / "hub", throttle=2.0) as hub:
        api = HfApi(hub.endpoint, token=hub.token)
        api.create_repo("local/model")
        start = time.monotonic()
        api.create_commit("local/model", [CommitOperationAdd("a.bin", LARGE)], commit_message="a")
        if direction == "down":
            start = time.monotonic()
            down = api.hf_hub_download("local/model", "a.bin", cache_dir=tmp_path / "cache")
            assert Path(down).read_bytes() == LARGE
        seconds = time.monotonic() - start
    assert seconds >= 0.9 * len(LARGE) / 2_000_000
