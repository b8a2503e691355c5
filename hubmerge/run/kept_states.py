"""States kept in the work folder, each checked against its digests before a run continues from it."""

from __future__ import annotations

from pathlib import Path

from hubmerge.errors import HubmergeError
from hubmerge.executor.state import MergeState, load_state
from hubmerge.support.damage import LOGGER, set_aside
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import check_once, file_digest, trust_written
from hubmerge.support.names import MANIFEST_FILE, STATE_FILES

STATS_FILE = "figures.json"

_SMALL_FILES = (STATS_FILE, MANIFEST_FILE)


def write_digests(folder: Path) -> None:
    """Write the digests of the small files of a state beside its folder; the manifest has those of all tensors."""
    present = [folder / name for name in _SMALL_FILES if (folder / name).is_file()]
    text = "".join(f"{file_digest(path)}  {path.name}\n" for path in present)
    write_text_atomic(_digests_file(folder), text)


def kept_state(folder: Path, chain_digest: str) -> MergeState | None:
    """Return the state in a folder of the work folder, or None if there is no good one; a damaged one is set aside.

    Args:
        folder: the folder of the state.
        chain_digest: digest of everything that the step of the state depends on.
    """
    if not (folder.exists() or folder.is_symlink()):
        return None
    try:
        problem = _problem(folder, chain_digest)
    except HubmergeError as error:
        problem = error.message
    except (OSError, ValueError) as error:
        problem = f"not readable: {error}"
    if problem is None:
        return load_state(folder)
    set_aside(folder, problem)
    return None


def report_damage(place: str, problem: str) -> None:
    """Say in one line that a published state is damaged and not used."""
    LOGGER.warning(
        "%s is damaged and not used, the steps after the last good state are merged again (%s)", place, problem
    )


def check_state(folder: Path) -> MergeState:
    """Compare every tensor of a state with its checksum, once while the files are unchanged, and return the state.

    Raises:
        CheckpointError: the state is damaged.
    """
    state = load_state(folder)
    try:
        check_once("state", _checked_files(folder), state.verify)
    finally:
        state.close()
    return state


def trust_written_state(folder: Path) -> None:
    """Do not read a state again that this process has just written, as long as its files are unchanged."""
    trust_written("state", _checked_files(folder))


def _checked_files(folder: Path) -> list[Path]:
    return [folder / name for name in STATE_FILES if (folder / name).is_file()]


def _problem(folder: Path, chain_digest: str) -> str | None:
    if not folder.is_dir():
        return "a folder is expected"
    lines = _digests_file(folder).read_text(encoding="ascii").split("\n")
    recorded = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if MANIFEST_FILE not in recorded:
        return f"{_digests_file(folder).name} does not have its digest"
    for name, digest in recorded.items():
        if name in _SMALL_FILES and file_digest(folder / name) != digest:
            return f"{name} does not match its digest"
    if check_state(folder).manifest.chain != chain_digest:
        return "it belongs to another merge"
    return None


def _digests_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256")
