"""Training of a stream: base model, a fine-tuned tower for each task, and the datasets.

Two processes with one thread each fine-tune the towers; the bytes do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing

from transformers import AutoTokenizer, CLIPModel

from hubmerge.demo import folders, training
from hubmerge.demo.model import make_model, make_tokenizer, perturbed_tower, vision_tower
from hubmerge.demo.plan import TrainingPlan
from hubmerge.demo.stream import DemoStream
from hubmerge.demo.tasks import TASKS, DemoTask, find_tasks
from hubmerge.support import child_signals, interrupts

Progress = Callable[[str], None]
PROCESSES = 2


def write_untrained(stream: DemoStream) -> None:
    """Write a base model with random weights, and towers with noise on every weight."""
    settings = stream.settings
    tokenizer = make_tokenizer(prompt for task in TASKS for prompt in task.prompts)
    model = make_model(tokenizer, settings.seed)
    folders.write_base(stream.base.folder, model, tokenizer, "drawn at random and never trained")
    for number, task in enumerate(stream.tasks, start=1):
        tower = perturbed_tower(model, settings.seed + number)
        folders.write_tower(stream.tower(task.name).folder, tower, task, settings.namespace, {})
        _write_images(stream, task)


def write_trained(stream: DemoStream, plan: TrainingPlan, progress: Progress) -> None:
    """Train the base model, then every tower, and report the accuracies as progress."""
    settings = stream.settings
    tokenizer = make_tokenizer(prompt for task in TASKS for prompt in task.prompts)
    model = make_model(tokenizer, settings.seed)
    tasks = find_tasks(plan.base_tasks)
    with training.threads(1):
        training.train_base(model, tokenizer, tasks, settings.seed, plan, progress)
    origin = f"trained from scratch on plain drawings of {len(tasks)} tasks"
    folders.write_base(stream.base.folder, model, tokenizer, origin)

    names = settings.tasks
    progress(f"fine-tuning {len(names)} vision towers")
    scores: list[tuple[float, float]] = []
    with closing(_each_tower(stream, plan)) as towers:
        for name, zero_shot, fine_tuned in towers:
            scores.append((zero_shot, fine_tuned))
            accuracy = f"accuracy {zero_shot:.1f} -> {fine_tuned:.1f} %"
            progress(f"fine-tuned {name} ({len(scores)} of {len(names)}): {accuracy}")
    before, after = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    progress(f"mean accuracy: {before:.1f} % zero-shot, {after:.1f} % fine-tuned, each on its own task")


def _each_tower(stream: DemoStream, plan: TrainingPlan) -> Generator[tuple[str, float, float], None, None]:
    """Write all towers, and yield task, zero-shot accuracy and fine-tuned accuracy of each."""
    names = stream.settings.tasks
    processes = min(PROCESSES, len(names), os.cpu_count() or 1)
    if processes == 1:
        for name in names:
            yield name, *write_tower(stream, plan, name)
        return
    # Spawned, because forked children would inherit torch's threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())

    def kill() -> None:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()

    with (
        ProcessPoolExecutor(processes, context, initializer=_end_with_parent) as pool,
        interrupts.killed_on_exit(kill),
    ):
        try:
            with child_signals.kept_from_children():
                running = {pool.submit(write_tower, stream, plan, name): name for name in names}
            for finished in as_completed(running):
                yield running[finished], *finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            kill()
            raise


def write_tower(stream: DemoStream, plan: TrainingPlan, name: str) -> tuple[float, float]:
    """Fine-tune the tower of one task, and return the accuracy of base and tower in percent."""
    settings = stream.settings
    (task,) = find_tasks([name])
    with folders.quiet(), training.threads(1):
        base = CLIPModel.from_pretrained(stream.base.folder)
        tokenizer = AutoTokenizer.from_pretrained(stream.base.folder)
        tuned = training.fine_tune(base, tokenizer, task, settings.seed, plan)
        zero_shot, fine_tuned = (
            training.accuracy(model, tokenizer, task, settings.seed, settings.test_images) for model in (base, tuned)
        )
    scores = {"base model, zero-shot": zero_shot, "this tower": fine_tuned}
    folders.write_tower(stream.tower(name).folder, vision_tower(tuned), task, settings.namespace, scores)
    _write_images(stream, task)
    return zero_shot, fine_tuned


def _write_images(stream: DemoStream, task: DemoTask) -> None:
    settings = stream.settings
    counts = {"train": settings.train_images, "test": settings.test_images}
    folders.write_dataset(stream.dataset(task.name).folder, task, settings.seed, counts)


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
