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
└── InternalError             1   internal        an exception that nothing else explains

Exit statuses that are no errors: 6, `verify` found a difference; 7, `verify` found none, but could not check
everything; 10, `outdated` found a change.
"""

from __future__ import annotations

import errno

from merge_recipes.errors import ErrorContext, HubmergeError, RecipeError

__all__ = [
    "DISK_FULL",
    "CheckpointError",
    "DatasetError",
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
    """A dataset could not be read from the Hub."""

    code = "dataset"


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
