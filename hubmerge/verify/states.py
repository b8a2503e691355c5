"""Checks of the published states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubmerge.errors import HubmergeError
from hubmerge.executor.state import MergeState, find_state
from hubmerge.hub import states
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published


def check_state_digests(published: Published) -> Iterator[Finding]:
    """Check the manifests of the states before and after the step, without a download of the values."""
    for number in (published.step - 1, published.step):
        digest = published.state_digest(number) if number else None
        if digest is None:
            continue
        found = states.manifest_digest(published.repo, digest)
        if found is None:
            yield Finding("state", "unknown", f"the state after step {number} is not published or was removed")
        elif found != digest:
            yield _mismatch(number)
        else:
            yield Finding("state", "same", f"the state after step {number} matches the digest in the report")


def fetch_checked_state(published: Published, number: int, folder: Path) -> MergeState | Finding | None:
    """Download the state after a step and check every tensor against its checksum.

    Args:
        published: the published step.
        number: the step whose state is downloaded, 1-based.
        folder: the folder to download it to.

    Returns:
        The state, a finding if it differs, or None if it is not published.
    """
    digest = published.state_digest(number)
    if digest is None or not states.fetch_state(published.repo, digest, folder):
        return None
    try:
        state = find_state(folder)
        if state is None or state.digest != digest:
            return _mismatch(number)
        state.verify()
    except HubmergeError as error:
        return Finding("state", "differs", f"the state after step {number}: {error.message}")
    return state


def check_state_values(published: Published, folder: Path) -> Iterator[Finding]:
    """Check every tensor of the state after the step, which the next step will start from."""
    state = fetch_checked_state(published, published.step, folder)
    if isinstance(state, Finding):
        yield state
    elif state is not None:
        detail = f"every tensor of the state after step {published.step} matches its checksum"
        yield Finding("state", "same", detail)


def _mismatch(number: int) -> Finding:
    return Finding("state", "differs", f"the state after step {number} does not match the digest in the report")
