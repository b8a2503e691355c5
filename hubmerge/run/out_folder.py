"""The folder a user names with --out: the last merged model, or that of every step in a folder of its own."""

from __future__ import annotations

import errno
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.support.files import remove_folder
from hubmerge.support.names import REPORT_FILE, step_tag


@dataclass(frozen=True)
class OutFolder:
    """Where merged models are left as ordinary transformers folders, each of which appears whole or not at all.

    With `every_step` the folder holds step-01, step-02, ..., otherwise the files of the last step.
    """

    folder: Path
    every_step: bool = False

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            MachineError: it does.
        """
        if not self.folder.exists():
            return
        found = [self.folder] if self.folder.is_file() else sorted(self.folder.iterdir())
        ours = (
            all(re.fullmatch(r"\.?step-\d+(\.partial)?", path.name) for path in found)
            if self.every_step
            else not found or (self.folder / REPORT_FILE).is_file()
        )
        if not ours:
            raise MachineError(
                f"--out {self.folder}: the folder holds something else", hint="name a new or empty folder"
            )

    def place(self, step: int) -> Path:
        """Where the merged model of a step goes."""
        return self.folder / step_tag(step) if self.every_step else self.folder

    def move(self, folder: Path, step: int) -> None:
        """Put the merged model of a step here and take it from where it was; nothing if it is not there."""
        if not folder.is_dir():
            return
        place = self.place(step)
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_folder(place)
        try:
            folder.rename(place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # On another disk.
            self.copy(folder, step)
            remove_folder(folder)

    def copy(self, folder: Path, step: int) -> None:
        """Put a copy of the merged model of a step here."""
        place = self.place(step)
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        remove_folder(place)
        partial.rename(place)
