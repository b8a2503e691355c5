"""The tasks of the demo: the first eight make the stream of `hubmerge demo`, all twenty the longer streams."""

from __future__ import annotations

from collections.abc import Iterable

from hubmerge.demo.tasks import patches, patterns, scenes, shapes, signs
from hubmerge.demo.tasks.task import DemoTask
from hubmerge.errors import HubmergeError

TASKS: tuple[DemoTask, ...] = (
    shapes.SHAPES_TASK,
    shapes.DOTS_TASK,
    shapes.CLOCKS_TASK,
    shapes.COLOURS_TASK,
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


def tasks_named(names: Iterable[str]) -> tuple[DemoTask, ...]:
    """Return the tasks of these names, in this order.

    Raises:
        HubmergeError: a name is unknown.
    """
    known = {task.name: task for task in TASKS}
    names = tuple(names)
    for name in names:
        if name not in known:
            raise HubmergeError(f"the demo has no task {name!r}", hint=f"its tasks are {', '.join(sorted(known))}")
    return tuple(known[name] for name in names)


__all__ = ["DEMO_TASKS", "TASKS", "DemoTask", "tasks_named"]
