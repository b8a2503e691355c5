"""Every test process has a Hub of its own, and every client in it is pointed there before it is imported."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from hubmerge.localhub import LocalHub

pytest_plugins = ["tests.stage"]

HUB = pytest.StashKey[LocalHub]()
FOLDER = pytest.StashKey[Path]()

READER_TOKEN, STRANGER_TOKEN = "hf_onlyforreading", "hf_ofastranger"
USERS = [
    {"name": "local", "token": "hf_" + secrets.token_hex(17), "role": "write", "admin": True, "orgs": []},
    {"name": "reader", "token": READER_TOKEN, "role": "read", "orgs": []},
    {"name": "stranger", "token": STRANGER_TOKEN, "role": "write", "orgs": []},
]


def _stop_ignoring_interrupts() -> None:
    """React to SIGINT, which shells ignore in the background, and to SIGHUP, which nohup ignores: tests send both."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_configure(config: pytest.Config) -> None:
    """Start the Hub. The clients read HF_ENDPOINT when they are imported, so this comes before any test module."""
    _stop_ignoring_interrupts()
    # How long examples take depends on the load of the machine.
    settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")
    spreads_work_only = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if spreads_work_only:
        return
    folder = Path(tempfile.mkdtemp(prefix="hubmerge-tests-"))
    (folder / "hub").mkdir()
    (folder / "hub" / "users.json").write_text(json.dumps({"signing_key": "00", "users": USERS}))
    hub = LocalHub(folder / "hub").start()
    config.stash[FOLDER] = folder
    config.stash[HUB] = hub
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN_PATH", "HF_DATASETS_CACHE"):
        os.environ.pop(name, None)
    os.environ |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    # Every core has a process of tests already; torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the Hub and remove its files."""
    hub = config.stash.get(HUB, None)
    if hub is not None:
        hub.stop()
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)


@pytest.fixture(scope="session")
def local_hub(pytestconfig: pytest.Config) -> LocalHub:
    """Return the Hub that HF_ENDPOINT and HF_TOKEN of this process point to."""
    return pytestconfig.stash[HUB]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a user cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


_NUMBERS = itertools.count(1)


@pytest.fixture
def repo_name() -> Callable[..., str]:
    """Make ids nobody uses: `repo_name("merged")` gives `local/merged-17`."""

    def make(name: str = "repo", namespace: str = "local") -> str:
        return f"{namespace}/{name}-{next(_NUMBERS)}"

    return make
