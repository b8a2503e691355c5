"""The work folder of a run: states, the step being published, the lock, and the report of the finished steps.

    WORK/NAME/
      run.lock            locked while a run uses the folder
      lock.yaml           the lock of the stream, once every reference is resolved
      report.json         the report of the finished steps
      history/            the whole report of each finished step
      states/<digest>/    accumulated deltas: the newest step's, and the one before until that step is finished
      states/<digest>.sha256   digests of the small files of a state
      step-03/            the files of a step, until they are published
      stages/NAME/        the work folders of other documents of the recipe's file, with their merged models
      parts/<commit>/     checkpoints that are not downloaded whole, until their step is finished
      cache/              inputs that evaluation prepares once, and the scores that were computed

A damaged file is set aside as NAME.damaged and made again; damaged states go with the outdated ones. Every folder is
whole unless its name begins with a dot; the next run removes these leftovers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hubmerge.errors import MachineError
from hubmerge.support.damage import SUFFIX, remove, set_aside, set_aside_files_among
from hubmerge.support.files import remove_folder
from hubmerge.support.names import HISTORY_FOLDER, step_tag


class Workspace:
    """Paths in the folder of one run. Open it with `open_workspace`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lock_file(self) -> Path:
        """Lock of the stream."""
        return self.folder / "lock.yaml"

    @property
    def report_file(self) -> Path:
        """Report of the finished steps."""
        return self.folder / "report.json"

    @property
    def history(self) -> Path:
        """Folder of the whole reports of the finished steps, one file for each."""
        return self.folder / HISTORY_FOLDER

    @property
    def cache(self) -> Path:
        """Folder of inputs that evaluation prepares once (decoded images, embeddings of prompts), and of scores."""
        return self.folder / "cache"

    @property
    def partial_downloads(self) -> Path:
        """Folder of the checkpoints that are not downloaded whole."""
        return self.folder / "parts"

    @property
    def states(self) -> Path:
        """Folder of the states, with a subfolder for each chain digest."""
        return self.folder / "states"

    @property
    def stages(self) -> Path:
        """Parent of the work folders of the stages."""
        return self.folder / "stages"

    def state_folder(self, chain_digest: str) -> Path:
        """Return the folder of the state with a chain digest; it need not exist."""
        return self.states / chain_digest.removeprefix("sha256:")[:32]

    def step_folder(self, step: int) -> Path:
        """Return the folder of the files of a step; it need not exist."""
        return self.folder / step_tag(step)

    def remove_states(self, *, keep: set[str]) -> None:
        """Remove all states but those with the chain digests in `keep`."""
        kept = {self.state_folder(digest).name for digest in keep}
        for path in self.states.iterdir() if self.states.is_dir() else ():
            if path.is_dir() and path.name not in kept:
                remove_folder(path)
            elif path.suffix == ".sha256" and path.stem not in kept:
                path.unlink()

    def remove_partial_downloads(self, *, keep: set[Path]) -> None:
        """Remove all checkpoints that are not downloaded whole, but for the folders in `keep`."""
        for folder in self.partial_downloads.iterdir() if self.partial_downloads.is_dir() else ():
            if folder.is_dir() and folder not in keep:
                remove_folder(folder)

    def remove_leftovers(self) -> None:
        """Remove the unfinished files and folders of an interrupted run."""
        leftovers = [
            *self.folder.glob(".*"),
            *self.states.glob(".*"),
            *self.history.glob(".*"),
            *self.cache.rglob(".*"),
        ]
        for path in leftovers:
            remove(path)

    def set_aside_wrong_types(self) -> None:
        """Set aside files under the names of folders, and folders under the names of files."""
        steps = (path for path in self.folder.glob("step-*") if path.suffix != SUFFIX)
        folders = [self.folder, self.states, self.cache, self.partial_downloads, self.history, self.stages]
        set_aside_files_among([*folders, *steps])
        if (self.folder / "run.lock").is_dir():
            set_aside(self.folder / "run.lock", "a file is expected")


def workspace_name(identity: str, label: str) -> str:
    """Return the name of a run's folder: a readable label and a hash of what identifies the run.

    Args:
        identity: a text that no other run has.
        label: a text for people, such as the target repo.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.")[:60] or "run"
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def open_workspace(work_dir: Path, name: str) -> Iterator[Workspace]:
    """Make or reopen a run's folder, and lock it against other processes until the block ends.

    Args:
        work_dir: the folder of all runs.
        name: the run's folder in it, as `workspace_name` returns it.

    Raises:
        MachineError: the folder cannot be made, or another run is using it.
    """
    workspace = Workspace(work_dir / name)
    lock = FileLock(workspace.folder / "run.lock", blocking=False, thread_local=False)
    try:
        workspace.set_aside_wrong_types()
        workspace.states.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise MachineError(
            f"another run is using {workspace.folder}",
            hint="wait for it to end, or choose another --work-dir",
            file=str(workspace.folder),
        ) from error
    except OSError as error:
        raise MachineError(
            f"the work folder {workspace.folder} cannot be used: {error.strerror}",
            hint="choose another --work-dir",
            file=str(workspace.folder),
        ) from error
    try:
        workspace.remove_leftovers()
        yield workspace
    finally:
        lock.release()
