"""Tasks: functions that the first process runs in all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from hubmerge.executor.parallel.context import ExecutorContext
from hubmerge.executor.parallel.processes import Failure, Processes, Shutdown, failing_together, is_shared

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """Message of the first process: a call that all processes make."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    context: ExecutorContext


def run_on_all(context: ExecutorContext, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Call `function(*arguments, context=..., **options)` in all processes and return the first one's result.

    Call it in the first process while the others are in `worker_loop`. The arguments must be picklable. The other
    processes use their own device.
    """
    processes = context.processes
    with processes.task_lock, failing_together(processes):
        if processes.count > 1:
            processes.exchange(Task(function, arguments, options, context.portable()))
        return function(*arguments, context=context, **options)


def worker_loop(processes: Processes, device: torch.device) -> int:
    """Run the tasks of the first process until it shuts down, and return the exit status of the run.

    Errors that all processes raise are reported by the first one.
    """
    while True:
        task = processes.exchange(None)[0]
        if isinstance(task, Shutdown):
            return task.status
        if isinstance(task, Failure):
            # The first process failed while it sent the task.
            continue
        context = replace(task.context, processes=processes, device=device)
        try:
            with failing_together(processes):
                task.function(*task.arguments, context=context, **task.options)
        except BaseException as error:
            if not is_shared(error):
                raise
