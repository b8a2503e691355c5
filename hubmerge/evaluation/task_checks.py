"""Checks of a task before any weight is read: against the preview of its dataset, and the config of the base model.

A check raises an `EvaluationError`. All of them are made, so that a user sees all mistakes of a recipe at once. What
only the rows tell, such as an image that cannot be decoded, is checked when the task is prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hubmerge.checkpoints.planning.class_names import class_count as class_number
from hubmerge.checkpoints.planning.class_names import class_names as classes_of
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.base_files import (
    BaseFiles,
    check_classification_head,
    check_clip,
    check_embedder,
    check_entailment,
    check_image_head,
    check_image_processor,
    check_tokenizer,
)
from hubmerge.evaluation.classes import ONE_CLASS
from hubmerge.evaluation.columns import (
    check_images,
    check_labels,
    check_numbers,
    check_texts,
    text_column,
)
from hubmerge.evaluation.head_rows import find_head_rows
from hubmerge.evaluation.labels import check_label_values, declared_names, have_order
from hubmerge.evaluation.own_head import OWN_HEAD_KINDS, HeadFacts
from hubmerge.evaluation.preview import DatasetPreview
from hubmerge.evaluation.prompts import check_columns
from hubmerge.evaluation.retrieval_columns import DOCUMENT_IDS, QUERY_IDS, check_ids
from hubmerge.evaluation.task_keys import (
    check_kind_metrics,
    check_no_classes,
    check_prompts,
    check_text_metrics,
    task_place,
)
from merge_recipes import Task

Key = tuple[str, ...]
"""Key path of a value, from the task on."""

Found = Iterator[tuple[Key, EvaluationError]]


def check_task(task: Task, preview: DatasetPreview, base: BaseFiles | None, head: HeadFacts | None = None) -> Found:
    """Yield the mistakes of a task, each with the key that it is about.

    Of a kind that is a plug-in, only the number of rows is checked.

    Args:
        task: the task.
        preview: the preview of its dataset.
        base: the base model, None if its config cannot be read.
        head: the head of a checkpoint that scores the task, None for the base model's.
    """
    yield from _failures(("dataset", "split"), _check_rows, task, preview)
    for check in _PREVIEW_CHECKS.get(task.kind, ()):
        yield from check(task, preview)
    if base is not None:
        for base_check in _BASE_CHECKS.get(task.kind, ()):
            if head is not None and base_check in _HEAD_CHECKS:
                continue
            yield from _failures(("kind",), base_check, base)
        if task.kind in OWN_HEAD_KINDS:
            yield from _failures(_names_key(task), _check_head, task, preview, base, head)


def class_count(task: Task, preview: DatasetPreview) -> int | None:
    """Return the number of classes of a task, None if it has none or they are not known."""
    if _labels not in _PREVIEW_CHECKS.get(task.kind, ()):
        return None
    try:
        names = known_names(task, preview)
    except EvaluationError:
        return None
    return None if names is None else len(names)


def known_names(task: Task, preview: DatasetPreview) -> tuple[str, ...] | None:
    """Return the names of the classes of a task, None if only a download tells them.

    Raises:
        EvaluationError: the label column or the names are wrong.
    """
    names = declared_names(preview.columns, task.dataset.label, task.class_names, task_place(task))
    return tuple(sorted(preview.labels)) if names is None and preview.labels is not None else names


def _failures(key: Key, check: Callable[..., object], *arguments: object) -> Found:
    try:
        check(*arguments)
    except EvaluationError as error:
        yield key, error


def _check_rows(task: Task, preview: DatasetPreview) -> None:
    if preview.rows == 0:
        raise EvaluationError(
            f"{task_place(task, task.dataset.rows)}: no examples",
            hint="set `split` of the dataset to a split with examples",
        )


def _images(task: Task, preview: DatasetPreview) -> Found:
    source = task.dataset
    yield from _failures(("dataset", "image"), check_images, preview.columns, source.image, task_place(task))
    yield from _failures(("dataset", "image"), _check_filled, task, preview, source.image, "image")


def _texts(task: Task, preview: DatasetPreview) -> Found:
    column = text_column(task.dataset)
    yield from _failures(("dataset", "text"), check_texts, preview.columns, column, task_place(task))
    yield from _failures(("dataset", "text"), _check_filled, task, preview, column, "text")


def _labels(task: Task, preview: DatasetPreview) -> Found:
    column = task.dataset.label
    wrong = list(_failures(("dataset", "label"), check_labels, preview.columns, column, task_place(task)))
    if wrong:
        yield from wrong
        return
    yield from _failures(("dataset", "label"), _check_filled, task, preview, column, "label")
    yield from _failures(_names_key(task), _check_names, task, preview)


def _check_filled(task: Task, preview: DatasetPreview, column: str, role: str) -> None:
    missing = preview.empty.get(column, 0)
    if missing:
        number = "1 row has" if missing == 1 else f"{missing} rows have"
        raise EvaluationError(
            f"{task_place(task)}: {number} no {role} in column {column!r}",
            hint="choose a split in which every row has one, or remove the rows from the dataset",
        )


def _check_names(task: Task, preview: DatasetPreview) -> None:
    place = task_place(task)
    names = declared_names(preview.columns, task.dataset.label, task.class_names, place)
    if preview.labels is not None:
        check_label_values(preview.labels, names, task.dataset.label, place)
    known = known_names(task, preview)
    if known is not None and len(known) < 2 and preview.rows != 0:
        raise EvaluationError(f"{place}: {len(known)} class, expected at least 2", hint=ONE_CLASS)


def _check_head(task: Task, preview: DatasetPreview, base: BaseFiles, head: HeadFacts | None) -> None:
    try:
        names = known_names(task, preview)
    except EvaluationError:
        return  # reported as a mistake of the labels
    if names is None or (head is not None and not head.known):
        return
    ordered = have_order(preview.columns, task.dataset.label, task.class_names)
    if head is not None:
        classes, count = head.classes(base.config)
        find_head_rows(classes, count, names, task_place(task), owner=head.label, ordered=ordered)
        return
    classes = classes_of(base.config)
    find_head_rows(classes, _count_of(base, classes), names, task_place(task), ordered=ordered)


def _count_of(base: BaseFiles, classes: tuple[str, ...] | None) -> int:
    """Return the number of classes of the base model's head; 2 is the default of transformers."""
    labels, stated = base.config.get("id2label"), base.config.get("num_labels")
    if isinstance(labels, dict):
        return len(labels)
    return stated if isinstance(stated, int) else class_number(base.config) or len(classes or ()) or 2


def _prompts(task: Task, _: DatasetPreview) -> Found:
    yield from _failures(("prompts",), check_prompts, task)


def _text_metrics(task: Task, _: DatasetPreview) -> Found:
    yield from _failures(("metrics",), check_text_metrics, task)
    yield from _failures(("class_names",), check_no_classes, task)


def _no_classes(task: Task, _: DatasetPreview) -> Found:
    yield from _failures(("class_names",), check_no_classes, task)


def _columns_of_prompt(task: Task, preview: DatasetPreview) -> Found:
    yield from check_columns(task, preview.columns)


def _names_key(task: Task) -> Key:
    return ("dataset", "label") if task.class_names is None else ("class_names",)


def _similarity(task: Task, preview: DatasetPreview) -> Found:
    source, place = task.dataset, task_place(task)
    for key in ("sentence1", "sentence2"):
        column = getattr(source, key)
        yield from _failures(("dataset", key), check_texts, preview.columns, column, place, key)
        yield from _failures(("dataset", key), _check_filled, task, preview, column, key)
    yield from _failures(("dataset", "score"), check_numbers, preview.columns, source.score, "score", place)
    yield from _failures(("dataset", "score"), _check_filled, task, preview, source.score, "score")
    yield from _embedder_keys(task)


def _retrieval(task: Task, preview: DatasetPreview) -> Found:
    source, place = task.dataset, task_place(task)
    yield from _embedder_keys(task)
    if source.corpus is None:
        for key in ("query", "positive"):
            column = getattr(source, key)
            yield from _failures(("dataset", key), check_texts, preview.columns, column, place, key)
            yield from _failures(("dataset", key), _check_filled, task, preview, column, key)
        return
    key = "corpus" if source.qrels is None else "qrels"
    for columns in (QUERY_IDS, DOCUMENT_IDS):
        yield from _failures(("dataset", key), check_ids, preview.columns, columns, task_place(task, source.rows))


def _embedder_keys(task: Task) -> Found:
    yield from _failures(("metrics",), check_kind_metrics, task)
    yield from _failures(("class_names",), check_no_classes, task)


_PREVIEW_CHECKS: dict[str, tuple[Callable[[Task, DatasetPreview], Found], ...]] = {
    "zero-shot-image-classification": (_images, _labels),
    "image-classification": (_prompts, _images, _labels),
    "text-classification": (_prompts, _texts, _labels),
    "zero-shot-text-classification": (_texts, _labels),
    "sentence-similarity": (_prompts, _similarity),
    "text-retrieval": (_prompts, _retrieval),
    "causal-lm": (_prompts, _texts, _text_metrics),
    "generation": (_prompts, _columns_of_prompt, _no_classes),
}
_BASE_CHECKS: dict[str, tuple[Callable[[BaseFiles], None], ...]] = {
    "zero-shot-image-classification": (check_clip, check_image_processor, check_tokenizer),
    "image-classification": (check_image_processor, check_image_head),
    "text-classification": (check_tokenizer, check_classification_head),
    "zero-shot-text-classification": (check_tokenizer, check_entailment),
    "sentence-similarity": (check_tokenizer, check_embedder),
    "text-retrieval": (check_tokenizer, check_embedder),
    "causal-lm": (check_tokenizer,),
    "lm-eval": (check_tokenizer,),
    "generation": (check_tokenizer,),
}
_HEAD_CHECKS = (check_image_head, check_classification_head)
"""Checks that the base model has a head, which the head of a checkpoint makes needless."""
