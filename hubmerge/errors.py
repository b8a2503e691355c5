"""Errors meant for users, with the exit status and the stable code of each kind.

HubmergeError                 1   error           base class, of recipe errors too
├── RecipeError               2   recipe          see `merge_recipes.errors`
├── HubError                  3   hub             missing, private or gated repo, no permission, unreachable Hub
│   ├── TargetError           3   target          the target repo has other content
│   │   └── TargetMovedError  3   target-moved    another writer committed to it during the run
│   └── DatasetError          3   dataset         a dataset that cannot be read from the Hub
├── CheckpointError           4   checkpoint      a checkpoint that cannot be merged: names, shapes, values, files
├── EvaluationError           2   evaluation      `evaluate` does not match the dataset or the model
├── UsageError                2   usage           an argument of a command or of a function is invalid
├── MachineError              5   machine         disk full, folder not writable, a missing optional package
├── RunInterruptedError     130   interrupted     Ctrl-C, SIGTERM, or another process of the run ended
├── CombinedError             *   several         several errors found together, before anything was merged
└── InternalError             1   internal        an exception that nothing else explains

`CombinedError` has the exit status of its errors; if they differ, the lowest: the recipe (2) before the Hub (3), a
checkpoint (4) and this machine (5).

Exit statuses that are no errors: 6, `verify` found a difference; 7, `verify` found none, but could not check
everything; 10, `outdated` found a change.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from merge_recipes.errors import ErrorContext, HubmergeError, RecipeError

__all__ = [
    "DISK_FULL",
    "CheckpointError",
    "CombinedError",
    "DatasetError",
    "ErrorCollector",
    "ErrorContext",
    "EvaluationError",
    "HubError",
    "HubmergeError",
    "InternalError",
    "MachineError",
    "RecipeError",
    "RunInterruptedError",
    "TargetError",
    "TargetMovedError",
    "UsageError",
]

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers of a file that cannot grow: no space, a quota, a limit on the size of files."""


class HubError(HubmergeError):
    """The Hub refused a request, did not respond, or has no repo, revision or file of that name."""

    code = "hub"
    exit_code = 3


class TargetError(HubError):
    """The target repo has other content than the stream."""

    code = "target"


class TargetMovedError(TargetError):
    """Another writer committed to the target repo between two steps of a run."""

    code = "target-moved"


class DatasetError(HubError):
    """A dataset could not be read from the Hub.

    Attributes:
        key: the key of the dataset in the recipe that is wrong: path, name, split or revision.
    """

    code = "dataset"

    def __init__(self, message: str, *, key: str = "path", hint: str | None = None, **place: Any) -> None:
        super().__init__(message, hint=hint, **place)
        self.key = key


class CheckpointError(HubmergeError):
    """A checkpoint cannot be merged: a file, name, shape, dtype or value is wrong."""

    code = "checkpoint"
    exit_code = 4


class EvaluationError(HubmergeError):
    """The `evaluate` section of the recipe does not match the dataset or the model."""

    code = "evaluation"
    exit_code = 2


class UsageError(HubmergeError):
    """An argument of a command or of a public function is invalid."""

    code = "usage"
    exit_code = 2


class MachineError(HubmergeError):
    """This machine lacks something: disk space, permission to write, an optional package."""

    code = "machine"
    exit_code = 5


class RunInterruptedError(HubmergeError):
    """The command was interrupted: by Ctrl-C, by SIGTERM, or by the end of another process of the run."""

    code = "interrupted"
    exit_code = 130


class InternalError(HubmergeError):
    """An exception that no other error explains: a mistake in hubmerge or in a library."""

    code = "internal"
    exit_code = 1


class CombinedError(HubmergeError):
    """Several errors that were found together; `errors` lists them."""

    code = "several"

    def __init__(self, errors: Sequence[HubmergeError]) -> None:
        super().__init__("\n".join(map(str, errors)), **asdict(errors[0].context))
        self.errors = tuple(errors)
        self.exit_code = min(error.exit_code for error in errors)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values, with every error under `problems`."""
        return {**super().to_dict(), "problems": [error.to_dict() for error in self.errors]}

    def __reduce__(self) -> tuple[type[CombinedError], tuple[tuple[HubmergeError, ...]]]:
        return type(self), (self.errors,)


class ErrorCollector:
    """Collector of the errors of several checks, so that a user sees all of them at once."""

    def __init__(self, is_fatal: Callable[[HubmergeError], bool] = lambda _: False) -> None:
        """Begin without errors.

        Args:
            is_fatal: returns True for an error that makes further checks useless; it is raised at once.
        """
        self.errors: list[HubmergeError] = []
        self._is_fatal = is_fatal

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collect an error of the block. Errors of this machine, interrupts and fatal errors are raised at once."""
        try:
            yield
        except (MachineError, RunInterruptedError, InternalError):
            raise
        except CombinedError as error:
            self.errors += error.errors
        except HubmergeError as error:
            if self._is_fatal(error):
                raise
            self.errors.append(error)

    def check(self) -> None:
        """Raise the collected errors, if there are any.

        Raises:
            HubmergeError: the only error, or a `CombinedError` of all.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise CombinedError(self.errors)
