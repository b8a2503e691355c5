"""Step reports from the statistics of a merge, and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hubmerge.report.report import ModelReport, RunReport, StepReport
from hubmerge.run.measures import measures, rounding_warnings, similarity_warnings
from tests.cards.samples import RECIPE
from tests.checks import every
from tests.executor.streams import make_base, make_checkpoint, open_stream

NAMES = ["first", "second", "twin"]


def twins(folder: Path, method: str = "opcm", **parameters: Any):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    base = make_base(rng)
    first, second = make_checkpoint(rng, base), make_checkpoint(rng, base)
    twin = {name: base[name] + 0.5 * (first[name] - base[name]) for name in base}
    stream = open_stream(folder, base, [first, second, twin])
    return [figures for _, figures in stream.merge(folder / "states", method, parameters=parameters)]


def test_measures_survive_json(tmp_path: Path) -> None:
    run = RunReport(ModelReport("local/base", "0" * 40), "opcm", "e" * 64)
    for figures in twins(tmp_path):
        fields = measures(figures, NAMES)
        step = StepReport(step=figures.step, name=NAMES[figures.step - 1], reference="r", commit="1" * 40, **fields)
        run = run.with_step(step)
    assert RunReport.from_json(run.to_json()) == run
    first, second, twin = run.steps
    assert first.similarities == ()
    assert [(earlier.step, earlier.name) for earlier in twin.similarities] == [(1, "first"), (2, "second")]
    assert second.accumulated_norm is not None
    assert second.scale is not None
    assert first.task_vector_norm is not None
    assert second.task_vector_norm is not None
    assert second.drift == pytest.approx(second.accumulated_norm / second.scale)
    assert second.drift == pytest.approx((first.task_vector_norm + second.task_vector_norm) / 2)
    assert {matrix.name for matrix in twin.matrices} == {t.name for t in figures.tensors if t.rank is not None}
    assert every(0 <= matrix.rank <= matrix.directions for matrix in twin.matrices)
    assert twin.tensors.error is None


def test_warning_about_a_task_vector_close_to_an_earlier_one(tmp_path: Path) -> None:
    _, second, twin = twins(tmp_path)
    assert similarity_warnings(second, NAMES) == []
    [warning] = similarity_warnings(twin, NAMES)
    assert "the task vector of twin is close to that of first (step 1, cosine about" in warning
    assert f"discards {100 * twin.removed_share:.0f} % of its squared length" in warning


def test_warning_about_a_method_without_projection(tmp_path: Path) -> None:
    [warning] = similarity_warnings(twins(tmp_path, "weight_average")[2], NAMES)
    assert warning.endswith("the method adds it without projection")


def card_of(folder: Path, **parameters: Any) -> str:
    from hubmerge.cards import CardDetails, card_text

    run = RunReport(ModelReport("local/base", "0" * 40), "opcm", "e" * 64)
    for figures in twins(folder, **parameters):
        step = StepReport(figures.step, NAMES[figures.step - 1], "local/x", "1" * 40, **measures(figures, NAMES))
        run = run.with_step(step)
    return card_text(run, CardDetails(RECIPE))


def test_cards_show_warnings_and_cosines(tmp_path: Path) -> None:
    text = card_of(tmp_path)
    assert "Step 3: the task vector of twin is close to that of first" in text
    row = next(line for line in text.splitlines() if line.startswith("| 3 | twin |") and line.count("|") == 5)
    assert 0.9 < float(row.split("|")[3]) <= 1.0


def test_warning_about_rounding_that_loses_the_merged_delta() -> None:
    assert rounding_warnings(None, [torch.bfloat16]) == []
    assert rounding_warnings(0.09, [torch.bfloat16]) == []
    [some] = rounding_warnings(0.27, [torch.float32, torch.bfloat16])
    lost = "rounding the written weights lost 27 % of the merged delta's length"
    assert some == f"{lost}; set out_dtype: float32 in the recipe"
    [most] = rounding_warnings(0.9999996, [torch.float32])
    assert "lost 100 % of the merged delta's length; the written model is in effect the base model;" in most
    assert most.endswith("set out_dtype: float64 in the recipe")
