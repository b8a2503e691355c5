"""The page of a study: intervals, curves, sweeps, orders, similarities and matrices, without a request."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import hubmerge
from hubmerge.cli.main import main
from hubmerge.report_page import page_form
from hubmerge.study.answers import pack_answers
from hubmerge.study.page import study_page
from hubmerge.study.results import CellResult, References, ResultsFile, StepResult
from tests.report_page.reader import read

NAMES = ("a", "b", "c")
EVIL = "<script>alert(1)</script>"


def result(label: str, seed: int | None, score: float, **point: float) -> CellResult:
    rows = {str(step): dict.fromkeys(NAMES[:step], score - step / 100) for step in (1, 2, 3)}
    matrix = {"tasks": list(NAMES), "first_steps": [1, 2, 3], "rows": rows}
    steps = tuple(StepResult(name, 1.5, 2.0, 1.0, 1.25, 0.1, 0.2, 4.0) for name in NAMES)
    right = np.arange(40) < 40 * score
    answers = {name: pack_answers(right) for name in NAMES}
    digest = f"{label}{seed}{point}"
    series = label.split(",")[0]
    return CellResult(
        digest, series, label, "opcm", {}, point, 3, seed, None, None, NAMES, steps, matrix, 1.0, 0.9, answers
    )


def references() -> References:
    cosines: list[list[float | None]] = [[1.0, -0.25, None], [-0.25, 1.0, 0.5], [None, 0.5, 1.0]]
    scores = dict.fromkeys(NAMES, 0.5)
    return References("r", NAMES, scores, dict.fromkeys(NAMES, 0.9), cosines, {"layers.0": cosines})


def results() -> list[CellResult]:
    swept = [result(f"opcm, alpha {a}", seed, a, alpha=a) for a in (0.25, 0.75) for seed in (0, 1)]
    return [*swept, result("ties", 0, 0.5), result("ties", 1, 0.75)]


def test_the_page_has_all_that_the_study_found() -> None:
    page = study_page(results(), references(), "my study")
    reader = read(page)
    text = " ".join(" ".join(reader.words).split())
    anchors = {value for tag, name, value in reader.attributes if (tag, name) == ("section", "id")}
    expected = "scores curves tasks sweeps orders norms similarities matrices merges"
    assert anchors == set(expected.split())
    for part in ("my study", "6 merges of 3 variants, 3 checkpoints", "59.5 ± 17.7", "base model", "own checkpoints"):
        assert part in text
    assert "opcm, alpha 0.75: 72" in text  # a dot of the sweep
    assert "ties: mean 59.5" in text  # a row of the orders
    assert "-0.25" in text  # a cosine
    assert "layers.0" in text
    assert "[" in text
    assert "bootstrap" in text


def test_texts_of_a_study_are_text() -> None:
    named = dataclasses.replace(result(EVIL, 0, 0.5), series=EVIL)
    page = study_page([named], dataclasses.replace(references(), names=(EVIL, "b", "c")), EVIL)
    read(page)
    assert page.count("<script>") == 1


def test_a_study_without_scores_has_the_other_sections() -> None:
    bare = [dataclasses.replace(one, matrix={**one.matrix, "rows": {}}, answers={}) for one in results()]
    page = study_page(bare, dataclasses.replace(references(), base={}, own={}, cosines=[], layers={}), "bare")
    read(page)
    assert 'id="norms"' in page
    assert 'id="curves"' not in page


def test_the_command_writes_the_page_of_a_folder_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    file = ResultsFile(folder / "results.jsonl")
    out = str(tmp_path / "page.html")
    with pytest.raises(hubmerge.UsageError, match="there is no hubmerge"):
        hubmerge.write_report(folder, out)
    file.add(references())
    with pytest.raises(hubmerge.UsageError, match="has no result"):
        hubmerge.write_report(folder, out)
    for one in results():
        file.add(one)
    assert main(["report", str(folder), "--out", out, "--quiet"]) == 0
    page = Path(out).read_text(encoding="utf-8")
    assert page == study_page(results(), references(), "results")
    assert page_form(page) is not None
    assert main(["report", str(folder), "--out", out, "--leave-one-out", str(tmp_path / "x")]) == 2
    assert "a study has no single entries" in capsys.readouterr().err
