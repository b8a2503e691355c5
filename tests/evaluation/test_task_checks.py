"""Checks of tasks against the preview of a dataset and the files of the base model."""

from __future__ import annotations

import re
from typing import Any

import datasets
import pytest

from hubmerge.evaluation.base_files import BaseFiles
from hubmerge.evaluation.preview import DatasetPreview
from hubmerge.evaluation.task_checks import check_task, class_count
from tests.evaluation.small_task import make_task

TEXT, LABEL = datasets.Value("string"), datasets.ClassLabel(names=["bad", "good"])
CLIP = {"model_type": "clip"}
BERT = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "good", "1": "bad"}}
FILES = frozenset({"config.json", "tokenizer.json", "preprocessor_config.json"})


def preview(rows: int | None = 4, labels: list[Any] | None = None, **columns: Any) -> DatasetPreview:
    return DatasetPreview(datasets.Features(columns).to_dict(), rows, labels)


def mistakes(task: Any, seen: DatasetPreview, base: BaseFiles | None = None) -> list[str]:
    return [f"{'.'.join(key)}: {error.message}" for key, error in check_task(task, seen, base)]


def text_task(**keys: Any) -> Any:
    return make_task(kind="text-classification", prompts=("a photo of a {}.",), **keys)


TEXTS = preview(labels=[0, 1], text=TEXT, label=LABEL)


@pytest.mark.parametrize(
    ("config", "names", "expected"),
    [
        (BERT, FILES, None),
        ({**BERT, "architectures": ["BertModel"]}, FILES, "kind: base: the base model is a BertModel, text"),
        ({**BERT, "id2label": {"0": "yes", "1": "no"}}, FILES, "dataset.label: task things, .* no class 'bad'"),
        ({**BERT, "id2label": None, "num_labels": 3}, FILES, "the task has 2 classes, the base model's head has 3"),
        (BERT, frozenset({"config.json"}), "kind: base: the base model's repo has no tokenizer"),
    ],
)
def test_text_classification_and_its_base_model(config: Any, names: frozenset[str], expected: str | None) -> None:
    found = mistakes(text_task(), TEXTS, BaseFiles("base", config, names))
    assert (found == []) if expected is None else (len(found) == 1 and re.search(expected, found[0]) is not None), found


@pytest.mark.parametrize(
    ("config", "names", "expected"),
    [
        (CLIP, FILES, []),
        ({"model_type": "siglip"}, FILES, ["kind: base: the base model is of type 'siglip', zero-shot"]),
        (CLIP, frozenset({"vocab.json"}), ["kind: base: the base model's repo has no image processor"]),
        (CLIP, frozenset({"processor_config.json"}), ["kind: base: the base model's repo has no tokenizer"]),
    ],
)
def test_zero_shot_and_its_base_model(config: Any, names: frozenset[str], expected: list[str]) -> None:
    seen = preview(labels=[0, 1], image=datasets.Image(), label=LABEL)
    found = mistakes(make_task(), seen, BaseFiles("base", config, names))
    assert len(found) == len(expected)
    assert [one[: len(start)] for one, start in zip(found, expected, strict=True)] == expected


def test_what_is_not_known_is_no_mistake() -> None:
    words = preview(rows=None, text=TEXT, label=TEXT)
    assert mistakes(text_task(), words) == []
    assert class_count(text_task(), words) is None
    assert class_count(text_task(), preview(labels=["a", "b", "c"], text=TEXT, label=TEXT)) == 3
    assert mistakes(make_task(kind="of-a-plug-in"), preview(rows=4, other=TEXT)) == []
    assert mistakes(make_task(kind="of-a-plug-in"), preview(rows=0, other=TEXT))[0].startswith("dataset.split: ")


def test_tasks_without_classes() -> None:
    task = make_task(kind="causal-lm", prompts=("a photo of a {}.",), class_names=("a", "b"), metrics=("f1",))
    found = mistakes(task, preview(text=TEXT, label=LABEL))
    assert [one.partition(": ")[0] for one in found] == ["metrics", "class_names"]
    assert class_count(task, TEXTS) is None
