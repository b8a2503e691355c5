"""The place of a checkpoint or of one of its files, for messages and for the fields of errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.errors import CheckpointError


@dataclass(frozen=True)
class Origin:
    """The place of a checkpoint, or of one of its files. Its text opens every message about the place.

    Attributes:
        label: the checkpoint's name in messages: a folder, or `owner/name@commit`.
        folder: the local folder of the files, if they are not from a repo.
        repo: the repo on the Hub, if they are.
        commit: the commit in the repo.
        file: one file, named from the checkpoint's folder on; None for the checkpoint as a whole.
    """

    label: str
    folder: Path | None = None
    repo: str | None = None
    commit: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, place: Origin | str) -> Origin:
        """Return an origin as it is, and the origin of a label."""
        return place if isinstance(place, Origin) else cls(place)

    @classmethod
    def of_file(cls, path: Path) -> Origin:
        """Return the origin of a file on this machine."""
        return cls(str(path.parent), folder=path.parent, file=path.name)

    def in_file(self, file: str) -> Origin:
        """Return the origin of a file of the checkpoint."""
        return replace(self, file=file)

    def __str__(self) -> str:
        return self.label if self.file is None else f"{self.label}/{self.file}"

    def error(self, message: str, *, hint: str, tensor: str | None = None) -> CheckpointError:
        """Return the error to raise about this place.

        Args:
            message: the cause; the place is put in front.
            hint: the way out.
            tensor: the tensor that the error is about.
        """
        file = str(self.folder / self.file) if self.folder is not None and self.file is not None else self.file
        return CheckpointError(
            f"{self}: {message}", hint=hint, file=file, repo=self.repo, commit=self.commit, tensor=tensor
        )

    def unreadable(self, error: OSError) -> CheckpointError:
        """Return the error to raise where the operating system refuses to read the file."""
        return self.error(
            f"cannot be read: {error.strerror or error}",
            hint="check that the file exists and that you may read it",
        )
