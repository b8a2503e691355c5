"""Make a demo stream in a folder, or reuse it.

A complete folder is reused without importing torch or transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hubmerge.demo.plan import NAMESPACE, StreamSettings, TrainingPlan
from hubmerge.demo.stream import MARKER, PARTS, DemoStream
from hubmerge.demo.tasks import DEMO_TASKS, TASKS, find_tasks
from hubmerge.support.files import write_text_atomic

Progress = Callable[[str], None]


def make_stream(
    folder: Path,
    seed: int = 0,
    tasks: Sequence[str] | None = None,
    progress: Progress = print,
    *,
    plan: TrainingPlan | None = None,
    namespace: str = NAMESPACE,
) -> DemoStream:
    """Train a stream, or reuse the folder if it has this stream already.

    The same seed gives the same bytes on the same machine. Eight tasks take one to two minutes on two cores.

    Args:
        folder: the folder of the stream.
        seed: the seed of all weights and images.
        tasks: the names of the tasks; None for the eight tasks of the demo.
        progress: called with each line about the progress.
        plan: the length of the training.
        namespace: the namespace of the repos.

    Returns:
        The complete stream.

    Raises:
        HubmergeError: a task is unknown.
        MachineError: scikit-image or scikit-learn is not installed; some tasks use their images.
    """
    plan = plan or TrainingPlan()
    names = tuple(task.name for task in DEMO_TASKS) if tasks is None else tuple(tasks)
    find_tasks((*names, *plan.base_tasks))
    stream = DemoStream(folder, StreamSettings(names, seed, namespace, plan))
    return _make(stream, progress)


def make_tiny_repos(folder: Path, tasks: int | Sequence[str] = 2, seed: int = 0) -> DemoStream:
    """Write an untrained stream: a random base model, noisy copies of its tower, a few images for each task.

    It takes about a second, and serves tests in which the accuracy does not matter.

    Args:
        folder: the folder of the stream.
        tasks: the names of the tasks, or the number of tasks to take from the start of `TASKS`.
        seed: the seed of all weights and images.

    Returns:
        The complete stream.
    """
    names = tuple(task.name for task in TASKS[:tasks]) if isinstance(tasks, int) else tuple(tasks)
    settings = StreamSettings(names, seed, training=None, train_images=8, test_images=24)
    return _make(DemoStream(folder, settings), lambda _: None)


def _make(stream: DemoStream, progress: Progress) -> DemoStream:
    if stream.is_complete():
        progress(f"reusing the complete stream in {stream.folder}")
        return stream
    from hubmerge.demo import train_stream

    folder = stream.folder
    (folder / MARKER).unlink(missing_ok=True)
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if stream.settings.training is None:
        train_stream.write_untrained(stream)
    else:
        train_stream.write_trained(stream, stream.settings.training, progress)
    write_text_atomic(folder / MARKER, json.dumps(stream.marker(), indent=2) + "\n")
    return stream
