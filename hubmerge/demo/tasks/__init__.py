"""The tasks of the demo: eight make the stream of `hubmerge demo`, twenty make the longer streams."""

from __future__ import annotations

from collections.abc import Iterable

from hubmerge.demo.tasks import figures
from hubmerge.demo.tasks.task import DemoTask
from hubmerge.errors import HubmergeError

TASKS: tuple[DemoTask, ...] = (
    figures.SHAPES_TASK,
    figures.DOTS_TASK,
    figures.CLOCKS_TASK,
    figures.COLOURS_TASK,
    figures.ARROWS_TASK,
    figures.SYMMETRY_TASK,
)

__all__ = ["TASKS", "DemoTask", "tasks_named"]


def tasks_named(names: Iterable[str]) -> tuple[DemoTask, ...]:
    """The tasks of these names, in this order.

    Raises:
        HubmergeError: a name is none of the twenty.
    """
    known = {task.name: task for task in TASKS}
    names = tuple(names)
    for name in names:
        if name not in known:
            raise HubmergeError(f"the demo has no task {name!r}", hint=f"its tasks are {', '.join(sorted(known))}")
    return tuple(known[name] for name in names)
