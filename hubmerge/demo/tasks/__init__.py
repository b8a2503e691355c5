"""Tasks of the demo: eight for `hubmerge demo`, and twelve more for longer streams."""

from __future__ import annotations

from collections.abc import Iterable

from hubmerge.demo.tasks import patches, patterns, scenes, shapes, signs
from hubmerge.demo.tasks.task import DemoTask
from hubmerge.errors import HubmergeError

TASKS: tuple[DemoTask, ...] = (
    shapes.SHAPES_TASK,
    shapes.DOTS_TASK,
    shapes.CLOCKS_TASK,
    shapes.COLORS_TASK,
    signs.LETTERS_TASK,
    signs.DIGITS_TASK,
    patches.SURFACES_TASK,
    patches.PHOTOS_TASK,
    patterns.SLANTS_TASK,
    patterns.STRIPES_TASK,
    scenes.PLACES_TASK,
    shapes.FRAMES_TASK,
    signs.SIGNS_TASK,
    patterns.CHECKERS_TASK,
    patterns.NOISES_TASK,
    shapes.ARROWS_TASK,
    patterns.WAVES_TASK,
    scenes.RELATIONS_TASK,
    patterns.GRADIENTS_TASK,
    scenes.BARS_TASK,
)
DEMO_TASKS = TASKS[:8]


def find_tasks(names: Iterable[str]) -> tuple[DemoTask, ...]:
    """Return the tasks with the names, in order.

    Raises:
        HubmergeError: there is no task with one of the names.
    """
    known = {task.name: task for task in TASKS}
    names = tuple(names)
    for name in names:
        if name not in known:
            raise HubmergeError(f"the demo has no task {name!r}", hint=f"choose from {', '.join(sorted(known))}")
    return tuple(known[name] for name in names)


__all__ = ["DEMO_TASKS", "TASKS", "DemoTask", "tasks_named"]
