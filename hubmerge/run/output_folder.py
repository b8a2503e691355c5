"""Output folder named with --out: the last merged model, or one folder per step."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import HubmergeError, UsageError
from hubmerge.report.history import ReadHistory
from hubmerge.support.files import partial_path, remove_folder, replace_folder, write_error
from hubmerge.support.folder_lock import locked_folder
from hubmerge.support.names import REPORT_FILE, STATE_FILES, STATE_FOLDER, history_file, is_step_folder, step_tag


@dataclass(frozen=True)
class OutputFolder:
    """Folder for merged models in the layout of transformers. Each model appears complete or not at all.

    Attributes:
        folder: The folder.
        every_step: True for the models of all steps in the subfolders step-01, step-02 and so on; False for the files
            of the last model.
        with_state: True to write the state after the last step too, in the subfolder `state`.
    """

    folder: Path
    every_step: bool = False
    with_state: bool = False

    def check(self) -> None:
        """Check that the folder is new, empty or holds merged models.

        Raises:
            UsageError: The folder holds other files, or it is a file.
        """
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise UsageError(
                f"--out {self.folder}: this is a file, expected a folder",
                hint="name a new or an empty folder",
                file=str(self.folder),
            )
        found = sorted(self.folder.iterdir())
        ours = (
            all(is_step_folder(path.name) for path in found)
            if self.every_step
            else not found or (self.folder / REPORT_FILE).is_file()
        )
        if not ours:
            raise UsageError(
                f"--out {self.folder}: the folder has files that are not a merged model",
                hint="name a new or an empty folder",
                file=str(self.folder),
            )

    def check_state(self, method: str, *, is_joint: bool) -> None:
        """Check that there is a state, if it is to be written.

        Raises:
            UsageError: The method merges all models at once and has none.
        """
        if self.with_state and is_joint:
            message = f"--state has no effect: {method} merges all models at once, without a state"
            raise UsageError(message, hint="remove --state")

    def place(self, step: int) -> Path:
        """Return the folder of the merged model of a step."""
        return self.folder / step_tag(step) if self.every_step else self.folder

    def move(self, folder: Path, step: int, read: ReadHistory | None = None) -> None:
        """Move the merged model of a step into the output folder; do nothing if `folder` does not exist.

        Args:
            folder: Folder of the model.
            step: The step.
            read: Reads the whole reports of the steps, which the output folder then has too.
        """
        if not folder.is_dir():
            return
        _add_history(folder, step, read)
        place = self.place(step)
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(place)
        try:
            folder.rename(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # The output folder is on another disk.
            self.copy(folder, step, read)
            remove_folder(folder)

    def copy(self, folder: Path, step: int, read: ReadHistory | None = None, *, link: bool = False) -> None:
        """Copy the merged model of a step into the output folder; the first arguments are those of `move`.

        Args:
            folder: Folder of the model.
            step: The step.
            read: Reads the whole reports of the steps.
            link: True to link weight files on the same disk, which takes neither time nor space. A program that changes
                such a file in place changes that of `folder` too.

        Raises:
            MachineError: A file cannot be written; nothing is left then.
        """
        place = self.place(step)
        with _whole_folder(place) as partial:
            shutil.copytree(folder, partial, copy_function=_link_weights if link else _copy_file)
            _add_history(partial, step, read)

    def copy_state(self, folder: Path, step: int) -> None:
        """Copy the state after the last step beside its model."""
        with _whole_folder(self.place(step) / STATE_FOLDER) as partial:
            partial.mkdir(parents=True)
            for path in folder.iterdir():
                if path.name in STATE_FILES:
                    _copy_file(str(path), str(partial / path.name))


@contextmanager
def _whole_folder(place: Path) -> Iterator[Path]:
    """Give the block a folder to create, which then replaces `place`; after an error nothing of it is left."""
    partial = partial_path(place)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
    except (HubmergeError, OSError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    replace_folder(partial, place)


def _copy_file(source: str, target: str) -> None:
    """Copy a file. Errors are no `OSError`, which `copytree` would collect for all other files."""
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise write_error(error, Path(target), Path(source).stat().st_size) from error


def _link_weights(source: str, target: str) -> None:
    """Link a weight file if the disk allows it; copy it and all other files otherwise."""
    if source.endswith(".safetensors"):
        try:
            Path(target).hardlink_to(source)
        except OSError:
            pass
        else:
            return
    _copy_file(source, target)


def _add_history(folder: Path, step: int, read: ReadHistory | None) -> None:
    """Write the whole reports of the steps up to `step` into the folder of a merged model, unless they are there."""
    if read is None:
        return
    for earlier in range(1, step + 1):
        path = folder / history_file(earlier)
        content = None if path.exists() else read(earlier)
        if content is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)


@contextmanager
def checked_output(out: OutputFolder | None) -> Iterator[None]:
    """Lock the output folder until the block ends, and check what it holds."""
    if out is None:
        yield
        return
    with locked_folder(out.folder, "--out"):
        out.check()
        yield
