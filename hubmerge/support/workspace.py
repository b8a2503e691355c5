"""The work folder of a run: where states, the step being published, the lock and the report so far lie.

    WORK/NAME/
      run.lock            held while a run uses the folder
      lock.yaml           the lock, once every reference is resolved
      report.json         the reports of the finished steps
      states/<digest>/    accumulated deltas: the newest step's, and the one before until that step is finished
      step-03/            the files of a step, until they are published
      parts/<commit>/     what was fetched of checkpoints that are not fetched whole, until their step is finished
      cache/              what evaluation prepares once

A folder either is whole or has a name that begins with a dot; such leftovers are removed when the next run starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hubmerge.errors import MachineError
from hubmerge.support.files import remove_folder
from hubmerge.support.names import step_tag


class Workspace:
    """One run's folder below the work folder. Create it with `open_workspace`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lock_file(self) -> Path:
        """The lock of the stream."""
        return self.folder / "lock.yaml"

    @property
    def report_file(self) -> Path:
        """The report of the steps finished so far."""
        return self.folder / "report.json"

    @property
    def cache(self) -> Path:
        """What evaluation prepares once: decoded images, embeddings of prompts."""
        return self.folder / "cache"

    @property
    def parts(self) -> Path:
        """The folder of checkpoints of which only a part is here."""
        return self.folder / "parts"

    @property
    def states(self) -> Path:
        """The folder of the states, one below it for each chain digest."""
        return self.folder / "states"

    def state_folder(self, chain_digest: str) -> Path:
        """Where the state of the step with that chain digest lies, or will lie."""
        return self.states / chain_digest.removeprefix("sha256:")[:32]

    def step_folder(self, step: int) -> Path:
        """Where the files of a step are put together."""
        return self.folder / step_tag(step)

    def forget_states(self, keep: set[str]) -> None:
        """Remove the states whose chain digest is not in `keep`."""
        kept = {self.state_folder(digest).name for digest in keep}
        if self.states.is_dir():
            for folder in self.states.iterdir():
                if folder.is_dir() and folder.name not in kept:
                    remove_folder(folder)

    def forget_parts(self, keep: set[Path]) -> None:
        """Remove what was fetched of checkpoints, but for the folders in `keep`."""
        for folder in self.parts.iterdir() if self.parts.is_dir() else ():
            if folder not in keep:
                remove_folder(folder)

    def sweep(self) -> None:
        """Remove what an interrupted run left half done."""
        leftovers = [*self.folder.glob(".*"), *self.states.glob(".*"), *self.cache.rglob(".*")]
        for path in leftovers:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def workspace_name(identity: str, label: str) -> str:
    """Return a folder name for a run: a readable label, then what sets it apart from others of that label."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip("-.")[:60] or "run"
    return f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


@contextlib.contextmanager
def open_workspace(work_dir: Path, name: str) -> Iterator[Workspace]:
    """Make or reopen a run's folder and keep it to this process until the block ends.

    Raises:
        MachineError: the folder cannot be made, or another run is using it.
    """
    workspace = Workspace(work_dir / name)
    lock = FileLock(workspace.folder / "run.lock", blocking=False, thread_local=False)
    try:
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
        workspace.sweep()
        yield workspace
    finally:
        lock.release()
