"""A Hub with users for tests of its limits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hubmerge.localhub import (
    LocalHub,
)
from tests.localhub.hostile import serve_users


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with serve_users(tmp_path_factory.mktemp("hub")) as hub:
        yield hub
