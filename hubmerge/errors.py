"""What can go wrong for a user, and the exit status each kind ends with.

    HubmergeError                 1   something the tool did not foresee
    ├── HubError                  3   the Hub: missing, private or gated repo, no permission, moved, unreachable
    │   ├── TargetError           3   the target repo holds something else
    │   │   └── TargetMovedError  3   somebody else committed to it while the run was working
    │   └── DatasetError          3   a dataset that cannot be read from the Hub
    ├── CheckpointError           4   a checkpoint that cannot be merged: names, shapes, values, files
    ├── EvaluationError           2   the recipe's `evaluate` section does not fit the dataset or the model
    └── MachineError              5   this machine: disk full, folder not writable, a missing extra

A recipe that cannot be read or does not hold together is `merge_recipes.RecipeError`, exit status 2.
"""

from __future__ import annotations

import errno

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when a file cannot grow: no room, a quota, a limit on the size of files."""


class HubmergeError(Exception):
    """A problem told to the user: one sentence that names the thing, and a hint that says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class HubError(HubmergeError):
    """The Hub refused, lacks or cannot deliver something."""

    exit_code = 3


class TargetError(HubError):
    """The repo to publish to holds something else."""


class TargetMovedError(TargetError):
    """Somebody else committed to the target repo between two steps of a run."""


class DatasetError(HubError):
    """A dataset could not be read from the Hub."""


class CheckpointError(HubmergeError):
    """A checkpoint cannot be merged: a file, name, shape, dtype or value is wrong."""

    exit_code = 4


class EvaluationError(HubmergeError):
    """The `evaluate` section of the recipe does not fit the dataset or the model."""

    exit_code = 2


class MachineError(HubmergeError):
    """This machine lacks something: disk space, permission to write, an optional package."""

    exit_code = 5
