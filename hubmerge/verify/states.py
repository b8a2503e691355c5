"""Checks of states: the published ones against their digests, and the recomputed ones against the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hubmerge.errors import HubError, HubmergeError
from hubmerge.executor.state import MergeState, StateManifest, find_state
from hubmerge.hub import states
from hubmerge.linalg import difference
from hubmerge.support.names import STATE_FOLDER, step_tag
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published

STATE_TOLERANCE = 1e-10
"""Largest distance between a recomputed and a published state that counts as equal, relative to the accumulated delta.

Two kinds of machines differ by about 1e-15 in one step.
"""

FLOAT32_TOLERANCE = 1e-6
"""The same for states in float32, whose steps round to 6e-8 of each value."""

UNPROVEN_TOLERANCE = 1e-6
"""Largest distance that rounding may explain if the steps before were not compared: it grows with every step."""

UNPROVEN_FLOAT32_TOLERANCE = 1e-4
"""The same for states in float32."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison with a published state, and that state if there is one."""

    finding: Finding
    published: MergeState | None = None


def check_state_digests(published: Published, *, missing: bool) -> Iterator[Finding]:
    """Check the manifests of the states before and after the step, without a download of the values.

    Args:
        published: the published step.
        missing: whether a state that is not published is a finding.
    """
    for number in (published.step - 1, published.step):
        digest = published.state_digest(number) if number else None
        if digest is None:
            continue
        if published.files.is_alone:
            if missing:
                yield Finding("state", "unknown", f"the state after step {number} cannot be read without the Hub")
            continue
        found = states.manifest_digest(published.repo, digest)
        if found is None:
            if missing:
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
    if digest is None:
        return None
    local = _state_beside(published, number)
    if local is not None:
        folder = local
    elif published.files.is_alone:
        return None
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not states.fetch_state(published.repo, digest, folder):
            return None
    try:
        state = find_state(folder)
        if state is None or state.digest != digest:
            return _mismatch(number)
        state.verify()
    except HubmergeError as error:
        return Finding("state", "differs", f"the state after step {number}: {error.message}")
    return state


def require_state(published: Published, folder: Path) -> MergeState:
    """Download the state after the last step and check every tensor against its checksum.

    Args:
        published: the published step.
        folder: the folder to download it to.

    Raises:
        HubError: there is none, or it is damaged.
    """
    tag = step_tag(published.step)
    found = fetch_checked_state(published, published.step, folder)
    if isinstance(found, Finding):
        raise HubError(
            f"{published.repo} at {tag}: {found.detail}",
            hint=f"run `hubmerge verify {published.repo}@{tag}`",
            repo=published.repo,
        )
    if found is None:
        raise HubError(
            f"{published.repo} has no state after {tag}",
            hint="read the newest step, or publish with `publish: {state: every}`",
            repo=published.repo,
        )
    return found


def _state_beside(published: Published, number: int) -> Path | None:
    """Return the state in the folder of a step on this machine, None if it has none."""
    folder = published.files.folder
    state = None if folder is None else folder / STATE_FOLDER
    return state if state is not None and number == published.step and state.is_dir() else None


def check_state_values(published: Published, folder: Path) -> Iterator[Finding]:
    """Check every tensor of the published states before and after the step, which runs start from."""
    for number in range(max(published.step - 1, 1), published.step + 1):
        state = fetch_checked_state(published, number, folder / str(number))
        if isinstance(state, Finding):
            yield state
        elif state is not None:
            state.close()
            detail = f"every tensor of the state after step {number} matches its checksum"
            yield Finding("state", "same", detail)


def compare_with_published(published: Published, state: MergeState, folder: Path, *, proven: bool) -> Comparison:
    """Compare a recomputed state with the published one, whose digest is another.

    Args:
        published: the published step.
        state: the recomputed state of this step or an earlier one.
        folder: the folder to download the published state to.
        proven: whether the state before was compared as well, so that rounding of earlier steps explains nothing.
    """
    number = state.step
    fetched = fetch_checked_state(published, number, folder)
    if isinstance(fetched, Finding):
        return Comparison(fetched)
    subject = f"the state after step {number}"
    if fetched is None:
        detail = f"{subject} is not published, and the recomputed one has another digest: it cannot be compared"
        return Comparison(Finding("state", "unknown", detail))
    problem = _other_numbers(fetched.manifest, state.manifest)
    if problem is None:
        distance, name = _distance(state, fetched)
        shown = f"{subject}: recomputed, the difference is {distance:.1e} of the accumulated delta"
        single = state.manifest.dtype == "float32"
        kind = " for states in float32" if single else ""
        if not single and published.report.parameters.get("precision") == "float32":
            single, kind = True, " for products in float32"
        most = FLOAT32_TOLERANCE if single else STATE_TOLERANCE
        if distance <= most:
            return Comparison(Finding("state", "same", f"{shown} (at most {most:.0e}{kind})"), fetched)
        unproven = UNPROVEN_FLOAT32_TOLERANCE if single else UNPROVEN_TOLERANCE
        verdict = "unknown" if not proven and distance <= unproven else "differs"
        problem = f"{shown}, largest in {name!r} (at most {most:.0e} is accepted{kind})"
        if verdict == "unknown":
            return Comparison(Finding("state", "unknown", problem), fetched)
    return Comparison(Finding("state", "differs", problem), fetched)


def _other_numbers(published: StateManifest, recomputed: StateManifest) -> str | None:
    """Return the first number of a manifest that differs, without the checksums."""
    subject = f"the state after step {recomputed.step}"
    if set(published.tensors) != set(recomputed.tensors) or set(published.parts) != set(recomputed.parts):
        return f"{subject} has other tensors than the recomputed one"
    theirs, ours = asdict(published), asdict(recomputed)
    for key in ("method", "step", "chain", "averaged", "dtype"):
        if theirs[key] != ours[key]:
            return f"{subject}: {key} is {theirs[key]!r}, recomputed {ours[key]!r}"
    for key in ("accumulated_norm", "scale"):
        if not math.isclose(theirs[key], ours[key], rel_tol=UNPROVEN_TOLERANCE):
            return f"{subject}: {key} is {theirs[key]}, recomputed {ours[key]}"
    return None


def _distance(ours: MergeState, theirs: MergeState) -> tuple[float, str]:
    """Return the distance of two states relative to the accumulated delta, and the tensor that differs most.

    A part, such as a sketch, counts relative to its own norm.
    """
    squares, largest, name = [], 0.0, ""
    shapes = theirs.shapes()
    total = ours.manifest.accumulated_norm or 1.0
    for tensor, shape in ours.shapes().items():
        if shapes[tensor] != shape:
            return math.inf, tensor
        apart = float(difference(ours.read(tensor), theirs.read(tensor)).norm()) / total
        squares.append(apart**2)
        if not apart <= largest:
            largest, name = apart, tensor
    distance = math.sqrt(math.fsum(squares))
    for key in ours.manifest.parts:
        mine, other = ours.read_part(key), theirs.read_part(key)
        if mine is None or other is None or mine.shape != other.shape:
            return math.inf, key
        norm = float(mine.double().norm()) or 1.0
        apart = float((mine.double() - other.double()).norm()) / norm
        if not apart <= max(distance, STATE_TOLERANCE):
            distance, name = apart, key
    return distance, name


def _mismatch(number: int) -> Finding:
    return Finding("state", "differs", f"the state after step {number} does not match the digest in the report")
