"""Tables of docs/study.md have the figures of the cells that are kept in docs/study/."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

from tests.docs.blocks import ROOT

SEEDS = range(5)
FIVE_SEEDS = [",".join(f"five-seeds{part}-{seed}.jsonl" for part in ("", "-filters")) for seed in SEEDS]
OTHERS = [f"others-{seed}.jsonl,others-filters-{seed}.jsonl" for seed in SEEDS]
REAL_TEXTS = [
    "real-text.jsonl",
    *(f"real-text-seed-{seed}.jsonl,real-text-filters-seed-{seed}.jsonl" for seed in SEEDS[1:]),
]

TABLES: dict[str, tuple[str, Sequence[str]]] = {
    "real texts": ("over_seeds", ["--to", "OPCM", "--by-task", "real-text.jsonl"]),
    "real texts, more seeds": ("over_seeds", ["--to", "OPCM", "--same-tests", *REAL_TEXTS]),
    "tiny images": ("over_seeds", ["--to", "OPCM", *FIVE_SEEDS]),
    "other tensors": ("others", OTHERS),
}
INTERVAL = re.compile(r"[+-]\d+\.\d to [+-]\d+\.\d| \([+-]\d+\.\d to [+-]\d+\.\d\)|\*\*")


@pytest.fixture
def over_seeds(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "study")
    monkeypatch.chdir(ROOT / "docs" / "study")
    return importlib.import_module("over_seeds")


def page_lines() -> set[str]:
    return {INTERVAL.sub("", line) for line in (ROOT / "docs" / "study.md").read_text(encoding="utf-8").splitlines()}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_the_accuracies_of_its_cells(
    table: str, over_seeds: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, arguments = TABLES[table]
    monkeypatch.setattr(over_seeds, "paired", lambda *_, **__: None)  # thousands of draws for each row
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    importlib.import_module(script).main()
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) > 5
    assert not set(rows) - page_lines()


def test_an_interval_in_a_table_is_that_of_its_cells(over_seeds: ModuleType) -> None:
    streams = [over_seeds.StreamResults.read(argument) for argument in REAL_TEXTS]
    keys = ("WUDI exact, ridge 0.1", 6), ("OPCM", 6)
    difference, interval, ahead = over_seeds.compared(streams, *keys, same_tests=True)
    assert f" {difference} | {interval} | {ahead} |" in (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
