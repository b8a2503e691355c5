"""Metrics of generated texts against reference texts: exact_match, chrf and bleu, each between 0 and 1."""

from __future__ import annotations

import importlib
import importlib.util
import re
import string
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.support.versions import INSTALL_EVAL
from merge_recipes import Task

EXACT_MATCH = "exact_match"
CORPUS_METRICS = {"chrf": "corpus_chrf", "bleu": "corpus_bleu"}
"""Metrics of sacrebleu, with the function that computes each."""

GENERATION_METRICS = (EXACT_MATCH, *CORPUS_METRICS)
"""Metrics of a task that generates texts."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def check_generation_metrics(task: Task) -> None:
    """Check the metrics of a task that generates texts.

    Raises:
        EvaluationError: a metric is unknown, or its package is not installed.
    """
    for name in task.metrics:
        if name not in GENERATION_METRICS:
            expected = ", ".join(GENERATION_METRICS)
            raise EvaluationError(
                f"task {task.name}: {task.kind} has no metric {name!r}", hint=f"set `metrics` to some of {expected}"
            )
        if name in CORPUS_METRICS and importlib.util.find_spec("sacrebleu") is None:
            raise EvaluationError(
                f"task {task.name}: {name} needs the package sacrebleu, which is not installed", hint=INSTALL_EVAL
            )


def normalized(text: str, how: str) -> str:
    """Return a text as exact_match compares it.

    >>> normalized("  The  Cat. ", "space"), normalized("  The  Cat. ", "words")
    ('The Cat.', 'cat')
    """
    if how == "none":
        return text
    text = unicodedata.normalize("NFC", text)
    if how == "words":
        text = _ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION))
    return " ".join(text.split())


def score_texts(
    metrics: Sequence[str], answers: Sequence[str], references: Sequence[Sequence[str]], how: str
) -> dict[str, float]:
    """Return the value of each metric.

    Args:
        metrics: the names of the metrics.
        answers: the generated text of each example.
        references: the reference texts of each example, at least one.
        how: the normalization of exact_match.
    """
    values: dict[str, float] = {}
    for name in metrics:
        if name == EXACT_MATCH:
            hits = [
                normalized(answer, how) in {normalized(text, how) for text in texts}
                for answer, texts in zip(answers, references, strict=True)
            ]
            values[name] = sum(hits) / len(hits)
        else:
            library: Any = importlib.import_module("sacrebleu")
            columns = [list(column) for column in zip_longest(*references)]  # None where an example has fewer
            values[name] = float(getattr(library, CORPUS_METRICS[name])(list(answers), columns).score) / 100
    return values
