"""Repos of the two language streams: base models, fine-tuned checkpoints and datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from hubmerge.demo.folders import LICENSE, quiet, write_card
from hubmerge.demo.language import models, training
from hubmerge.demo.language.tasks import CLASSIFICATION, WRITING
from hubmerge.demo.language.texts import SentenceTask
from hubmerge.demo.language.training import LanguagePlan
from hubmerge.demo.stream import DemoRepo
from hubmerge.demo.training import threads

CLASSIFIER, WRITER = "tiny-bert", "tiny-gpt2"
TEST_SENTENCES = 300
TAGS = ["hubmerge-demo"]

Progress = Callable[[str], None]


def make_language(
    folder: Path, namespace: str, progress: Progress = print, *, seed: int = 0, plan: LanguagePlan | None = None
) -> Iterator[DemoRepo]:
    """Train both streams below a new folder, and yield every written repo."""
    plan = plan or LanguagePlan()
    tokenizer = models.make_tokenizer(text for task in (*CLASSIFICATION, *WRITING) for text in task.vocabulary())
    with quiet(), threads(1):
        progress(f"training {CLASSIFIER}, then one copy for each of {len(CLASSIFICATION)} tasks")
        yield from _classifiers(folder, namespace, tokenizer, seed, plan)
        progress(f"training {WRITER}, then one copy for each of {len(WRITING)} tasks")
        yield from _writers(folder, namespace, tokenizer, seed, plan)


def _classifiers(folder: Path, namespace: str, tokenizer: Any, seed: int, plan: LanguagePlan) -> Iterator[DemoRepo]:
    classes = [name for task in CLASSIFICATION for name in task.classes]
    base = models.make_classifier(tokenizer, classes, seed)
    training.train_classifier(base, tokenizer, CLASSIFICATION, seed, plan)
    yield _model(folder, f"{namespace}/{CLASSIFIER}", base, tokenizer, "text-classification")
    for task in CLASSIFICATION:
        tuned = training.tune_classifier(base, tokenizer, CLASSIFICATION, task, seed, plan)
        yield _model(folder, f"{namespace}/{CLASSIFIER}_{task.name}", tuned, tokenizer, "text-classification", task)
        yield _dataset(folder, f"{namespace}/{task.name}-sentences", task, task.classes, seed)


def _writers(folder: Path, namespace: str, tokenizer: Any, seed: int, plan: LanguagePlan) -> Iterator[DemoRepo]:
    base = models.make_writer(tokenizer, seed)
    training.train_writer(base, tokenizer, WRITING, seed, plan)
    yield _model(folder, f"{namespace}/{WRITER}", base, tokenizer, "text-generation")
    for task in WRITING:
        tuned = training.tune_writer(base, tokenizer, task, seed, plan)
        yield _model(folder, f"{namespace}/{WRITER}_{task.name}", tuned, tokenizer, "text-generation", task)
        yield _dataset(folder, f"{namespace}/{task.name}-texts", task, (), seed)


def _model(
    folder: Path, repo: str, model: Any, tokenizer: Any, kind: str, task: SentenceTask | None = None
) -> DemoRepo:
    place = folder / repo.rpartition("/")[2]
    models.save(model, place, tokenizer)
    metadata: dict[str, Any] = {"license": LICENSE, "library_name": "transformers", "pipeline_tag": kind, "tags": TAGS}
    about = "It learnt plain sentences."
    if task is not None:
        base = repo.removesuffix(f"_{task.name}")
        metadata |= {"base_model": base, "base_model_relation": "finetune"}
        about = f"It is {base}, fine-tuned on sentences of its own kind. {task.about}"
    size = sum(parameter.numel() for parameter in model.parameters())
    text = f"# {place.name}\n\nA model with {size:,} parameters that reads made-up English. {about}\n"
    write_card(place, metadata, f"{text}It exists to show model merging on any machine, and is of no other use.\n")
    return DemoRepo("model", repo, place)


def _dataset(folder: Path, repo: str, task: SentenceTask, classes: Sequence[str], seed: int) -> DemoRepo:
    place = folder / repo.rpartition("/")[2]
    (place / "data").mkdir(parents=True)
    texts, labels = task.sentences("test", TEST_SENTENCES, seed)
    columns: dict[str, list[Any]] = {"text": list(texts)}
    features: dict[str, Any] = {"text": datasets.Value("string")}
    if classes:
        columns["label"] = list(labels)
        features["label"] = datasets.ClassLabel(names=list(classes))
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(place / "data" / "test-00000-of-00001.parquet")
    files = [{"split": "test", "path": "data/test-*"}]
    metadata = {"license": LICENSE, "tags": TAGS, "configs": [{"config_name": "default", "data_files": files}]}
    write_card(place, metadata, f"# {place.name}\n\n{task.about} Sentences made from patterns, for tests.\n")
    return DemoRepo("dataset", repo, place)
