"""The requirement that installs this hubmerge on another machine."""

from __future__ import annotations

from typing import Any

import pytest

from hubmerge.errors import UsageError
from hubmerge.support.requirement import direct_requirement, installed_requirement, requirement

COMMIT = 40 * "c"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (
            {"url": "https://h.org/o/r", "vcs_info": {"vcs": "git", "requested_revision": "v1", "commit_id": COMMIT}},
            f"hubmerge @ git+https://h.org/o/r@{COMMIT}",
        ),
        (
            {"url": "ssh://git@h.org/o/r", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            f"hubmerge @ git+ssh://git@h.org/o/r@{COMMIT}",
        ),
        (
            {"url": "https://h.org/x.whl", "archive_info": {"hashes": {"sha256": 64 * "a"}}},
            f"hubmerge @ https://h.org/x.whl#sha256={64 * 'a'}",
        ),
        ({"url": "https://h.org/x.whl", "archive_info": {}}, "hubmerge @ https://h.org/x.whl"),
        ({"url": "file:///home/me/hubmerge", "dir_info": {"editable": True}}, None),
        ({"url": "file:///home/me/x.whl", "archive_info": {}}, None),
        ({"url": "file:///home/me/r", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}, None),
    ],
)
def test_the_origin_that_pip_recorded_is_a_requirement(origin: dict[str, Any], expected: str | None) -> None:
    assert direct_requirement(origin) == expected


def test_a_given_requirement_wins_and_a_folder_needs_one() -> None:
    assert requirement("hubmerge==1") == "hubmerge==1"
    # The tests install a checkout.
    assert installed_requirement() is None
    with pytest.raises(UsageError, match="a folder of this machine") as refused:
        requirement()
    assert "--requirement" in (refused.value.hint or "")
