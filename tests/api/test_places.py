"""Repos and folders as arguments of commands that change a published stream."""

from __future__ import annotations

import pytest

import hubmerge
from hubmerge.api.places import repo_of
from hubmerge.errors import UsageError


def test_a_repo_is_named_alone() -> None:
    assert repo_of("me/merged", "taking an entry out") == "me/merged"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("./merged", "./merged is a folder; taking an entry out needs a published repo"),
        ("/srv/merged", "/srv/merged is a folder"),
        ("me/merged@step-02", "me/merged@step-02: taking an entry out starts from the newest step"),
        ("me/merged+me/adapter", "starts from the newest step"),
    ],
)
def test_folders_and_steps_are_refused(place: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        hubmerge.revoke(place, ["cats"], progress=None)
    assert message in caught.value.message


def test_rolling_back_needs_a_repo() -> None:
    with pytest.raises(UsageError, match="rolling back needs a published repo"):
        hubmerge.rollback("./merged", 1)
