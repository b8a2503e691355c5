"""Train the streams that the studies in this folder merge, and write a recipe for each beside them.

    python benchmarks/study/streams.py                   seeds 0, 1 and 2: about six minutes on two cores
    python benchmarks/study/streams.py FOLDER 3 4 5      other seeds, into another folder
    hubmerge study benchmarks/study/methods-0.yaml

Seed 0 has all twenty tasks of the demo, other seeds the first eight. With seed 0, for the study of similar
task vectors: two halves of one task's images, with growing overlap.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from transformers import AutoTokenizer, CLIPModel

from hubmerge.demo import folders, training
from hubmerge.demo.make_stream import make_stream
from hubmerge.demo.model import vision_tower
from hubmerge.demo.plan import TrainingPlan
from hubmerge.demo.stream import DemoStream
from hubmerge.demo.tasks import DEMO_TASKS, TASKS, DemoTask, find_tasks

FOLDER = Path(__file__).parent / "streams"
HALVES = ("letters", "surfaces")
OVERLAPS = (0, 25, 50, 75, 100)
"""Percent of the images of the second half that are in the first one too."""

IMAGES = 1000


def main(folder: Path = FOLDER, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Make everything that is not there yet."""
    for seed in seeds:
        tasks = TASKS if seed == 0 else DEMO_TASKS
        stream = make_stream(folder / f"seed{seed}", seed, [task.name for task in tasks])
        entries = [(task.name, f"./seed{seed}/towers/{task.name}", task) for task in tasks]
        write_recipe(folder / f"recipe-{seed}.yaml", f"./seed{seed}", entries)
        if seed == 0:
            for name in HALVES:
                write_halves(folder, stream, name)


def write_recipe(path: Path, stream: str, entries: list[tuple[str, str, DemoTask]]) -> None:
    """Return a recipe of (name, tower, task) entries; a task of several entries belongs to the first."""
    owners: dict[str, tuple[str, DemoTask]] = {}
    for name, _, task in entries:
        owners.setdefault(task.name, (name, task))
    recipe = {
        "merge_method": "opcm",
        "base_model": f"{stream}/base",
        "models": [{"model": tower, "name": name} for name, tower, _ in entries],
        "dtype": "float32",
        "evaluate": {
            "batch_size": 256,
            "tasks": [
                {
                    "name": task.name,
                    "kind": "zero-shot-image-classification",
                    "dataset": {"path": f"{stream}/datasets/{task.name}"},
                    "prompts": [task.prompt],
                    "model": name,
                }
                for name, task in owners.values()
            ],
        },
    }
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    without = path.with_stem(f"{path.stem}-no-fc2")  # what the authors of the null-space methods merge
    recipe["tensors"] = {"exclude": ["*.fc2.*"]}
    without.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def write_halves(folder: Path, stream: DemoStream, name: str) -> None:
    """Towers of one task: one from the first half of its images, the others from halves that overlap with it."""
    (task,) = find_tasks([name])
    images, labels = task.images("train", IMAGES, stream.settings.seed)
    half = IMAGES // 2
    starts = {"first": 0, **{f"overlap-{percent}": half - half * percent // 100 for percent in OVERLAPS}}
    for label, start in starts.items():
        tower = folder / "halves" / name / label
        if not tower.exists():
            part = _Part(task, images[start : start + half], labels[start : start + half])
            with folders.quiet(), training.threads(1):
                base = CLIPModel.from_pretrained(stream.base.folder)
                tokenizer = AutoTokenizer.from_pretrained(stream.base.folder)
                tuned = training.fine_tune(base, tokenizer, part, 1 + start, TrainingPlan())  # type: ignore[arg-type]
            folders.write_tower(tower, vision_tower(tuned), task, stream.settings.namespace, {})
        if label != "first":
            others = [t for t in DEMO_TASKS if t.name not in HALVES][:3]
            entries = [(t.name, f"./seed0/towers/{t.name}", t) for t in others]
            entries += [("first", f"./halves/{name}/first", task), ("second", f"./halves/{name}/{label}", task)]
            write_recipe(folder / f"recipe-{name}-{label}.yaml", "./seed0", entries)


class _Part:
    """A task that has only some of its images."""

    def __init__(self, task: DemoTask, images: list, labels: list) -> None:  # type: ignore[type-arg]
        self.prompts = task.prompts
        self._images, self._labels = images, labels

    def images(self, *_: object) -> tuple[list, list]:  # type: ignore[type-arg]
        return self._images, self._labels


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER,
        [int(seed) for seed in sys.argv[2:]] or (0, 1, 2),
    )
