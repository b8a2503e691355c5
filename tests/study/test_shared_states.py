"""Cells whose states are equal are merged once, and have exactly the results of cells that are merged alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.errors import CheckpointError
from hubmerge.executor import merge_steps
from hubmerge.methods import METHODS, method_named
from hubmerge.methods.moments.wudi import Wudi
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study, merge_cell, run_study, runner
from hubmerge.study.bench import Bench
from hubmerge.study.cells import cells
from hubmerge.study.results import CellResult, References
from hubmerge.study.shared_state import grouped_by_state
from hubmerge.support.progress import SilentProgress

Write = Callable[..., Path]

MOMENTS: list[dict[str, Any]] = [
    {"method": "iso_c", "parameters": {"scaling": [1.0, 1.5]}},
    {"method": "wudi", "parameters": {"ridge": 1.0, "others": "keep"}},
    {"method": "wudi", "name": "adam", "parameters": {"solver": "adam", "steps": 3}},
    {"method": "subspace_boost"},
    {"method": "spectrum", "parameters": {"power": 0.3, "others": "sum"}},
    {"method": "ace"},
    {"method": "sums", "parameters": {"matrices": ["sum", "adaptive"]}},
]
SCALED: list[dict[str, Any]] = [
    {"method": "opcm", "parameters": {"others": ["adaptive", "mean", "keep"]}},
    {"method": "opcm", "name": "released", "parameters": {"form": "stable"}},
    {"method": "opcm", "name": "stable", "parameters": {"diagonal": "keep", "others": "sum"}},
    {"method": "magmax", "parameters": {"scaling": [0.5, 1.0]}},
    {"method": "adaptive_scale", "parameters": {"others": ["adaptive", "mean"]}},
    {"method": "null_space_filter", "parameters": {"rank": 4, "others": ["mean", "sum"]}},
    {"method": "null_space_filter", "name": "scaled", "parameters": {"rank": 4, "scaling": "adaptive"}},
    {"method": "null_space_filter", "name": "kept", "parameters": {"rank": 4}},
]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the methods of all steps that studies merge."""
    found: list[str] = []

    def counted(merge: Any, *arguments: Any, **options: Any) -> Any:
        found.append(merge.method.name)
        return merge_steps(merge, *arguments, **options)

    monkeypatch.setattr(merge_cell, "merge_steps", counted)
    return found


class Notes(SilentProgress):
    """Keeps all notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.texts.append(text)


def comparable(result: CellResult) -> dict[str, object]:
    return {**vars(result), "seconds": 0}


@pytest.fixture(scope="module")
def bench(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return the opened stream."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"recipe": str(recipe_file), "methods": [{"method": "opcm"}]}), encoding="utf-8")
    study = load_study(path, installed_catalog())
    with Bench.open(study, folder / "cache", SilentProgress(), memory_bytes=1e9) as opened:
        yield opened


@pytest.mark.parametrize(
    ("variants", "merges", "score"), [(MOMENTS, 1, "every"), (SCALED, 6, "last")], ids=["moments", "scaled"]
)
def test_shared_cells_are_those_merged_alone(
    variants: list[dict[str, Any]],
    merges: int,
    score: str,
    tmp_path: Path,
    bench: Bench,
    write_study: Write,
    passes: list[str],
) -> None:
    path = write_study(methods=variants, tasks=[2], orders=1, first_seed=1)
    study = load_study(path, installed_catalog()).study
    missing = {str(number): cell for number, cell in enumerate(cells(study, bench.stream.length))}
    groups = grouped_by_state(bench, missing)
    references = References("", (), {}, {})
    shared = {
        cell.digest: cell
        for group in groups
        for cell in merge_cell.merge_cells(group, references, score=score, work=tmp_path)
    }
    assert len(groups) == merges
    assert len(passes) == 2 * merges
    passes.clear()
    for merge in (merge for group in groups for merge in group):
        [alone] = merge_cell.merge_cells([merge], references, score=score, work=tmp_path)
        assert comparable(shared[alone.digest]) == comparable(alone)
        assert len(alone.matrix["rows"]) == (2 if score == "every" else 1)
        assert alone.answers
    assert len(passes) == 2 * len(missing)


def groups_of(bench: Bench, path: Path) -> list[list[str]]:
    """Return the labels of the cells of a study by merge."""
    study = load_study(path, installed_catalog()).study
    missing = {str(number): cell for number, cell in enumerate(cells(study, bench.stream.length))}
    return [[merge.cell.label for merge in group] for group in grouped_by_state(bench, missing)]


def test_weights_and_precision_are_merged_anew(
    write_study: Write, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = bench.recipe.entries
    entries = (first.model_copy(update={"parameters": {"weight": 2.0}}), *others)
    changes = {"merge_method": "wudi", "models": entries}
    monkeypatch.setattr(bench, "recipe", bench.recipe.model_copy(update=changes))
    filtered = {"weight": [{"filter": "mlp", "value": 2.0}, {"value": 1}]}
    methods = [
        {"method": "wudi", "name": "has the weight of the entry", "parameters": {"ridge": [0.1, 1.0]}},
        {"method": "iso_c", "name": "has not, as another method than the recipe's"},
        {"method": "iso_c", "name": "same", "parameters": {"weight": 1.0, "scaling": 1.0}},
        {"method": "wudi", "name": "float32", "parameters": {"precision": "float32"}},
        {"method": "wudi", "name": "rounded", "round_to": "float32"},
        {"method": "ace", "name": "filtered", "parameters": filtered},
        {"method": "sums", "name": "filtered too", "parameters": {**filtered, "others": "keep"}},
        {"method": "adaptive_scale", "name": "another state"},
        {"method": "ties"},
    ]
    assert groups_of(bench, write_study(methods=methods)) == [
        ["has the weight of the entry, ridge 0.1", "has the weight of the entry, ridge 1.0"],
        ["has not, as another method than the recipe's", "same"],
        ["float32"],
        ["rounded"],
        ["filtered", "filtered too"],
        ["another state"],
        ["ties"],
    ]


def test_orders_and_numbers_of_tasks_are_merged_anew(write_study: Write, bench: Bench) -> None:
    groups = groups_of(bench, write_study(methods=[{"method": "sums"}, {"method": "iso_c"}], tasks=[2, 3], orders=2))
    assert groups == [["sums", "iso_c"]] * 4


def test_states_in_folders_are_shared_too(
    tmp_path: Path, write_study: Write, bench: Bench, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = [{"method": "magmax", "parameters": {"scaling": [0.5, 1.0]}}]
    path = write_study(methods=methods, tasks=[2])
    in_memory = results(bench, path, tmp_path)
    monkeypatch.setattr(bench, "in_memory", False)
    assert results(bench, path, tmp_path) == in_memory
    assert len(in_memory) == 2
    assert len(passes) == 2 * 2


def test_a_cell_that_fails_leaves_the_others(
    tmp_path: Path, write_study: Write, bench: Bench, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise CheckpointError("not positive definite")

    notes = Notes()
    monkeypatch.setattr(Wudi, "read_moments", fail)
    monkeypatch.setattr(bench, "progress", notes)
    path = write_study(methods=[{"method": "wudi"}, {"method": "iso_c"}, {"method": "sums"}], tasks=[2])
    found: list[str] = []
    with pytest.raises(CheckpointError, match="not positive definite"):
        found.extend(cell.method for cell in merged(bench, path, tmp_path))
    assert passes == ["wudi"] * 2
    assert found == ["iso_c", "sums"]
    assert notes.texts == ["wudi cannot be scored: not positive definite"]


def merged(bench: Bench, path: Path, work: Path) -> Iterator[CellResult]:
    """Yield the results of a study that scores the last step."""
    study = load_study(path, installed_catalog()).study
    missing = {str(number): cell for number, cell in enumerate(cells(study, bench.stream.length))}
    for group in grouped_by_state(bench, missing):
        yield from merge_cell.merge_cells(group, References("", (), {}, {}), score="last", work=work)


def results(bench: Bench, path: Path, work: Path) -> list[dict[str, object]]:
    return [comparable(cell) for cell in merged(bench, path, work)]


def test_a_study_merges_its_cells_once(
    tmp_path: Path, write_study: Write, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "write_outputs", lambda *_: None)  # plots take long, and are not the point here
    methods = [{"method": "iso_c", "parameters": {"scaling": [1.0, 1.5]}}, {"method": "sums"}]
    path, notes = write_study(methods=methods, tasks=[2], score="last"), Notes()
    study = load_study(path, installed_catalog())
    found = run_study(study, tmp_path / "out", tmp_path / "cache", notes)
    assert passes == ["iso_c"] * 2
    assert "1 merge: cells whose states are equal share one" in notes.texts
    file = tmp_path / "out" / "results.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:2]), encoding="utf-8")
    again = run_study(study, tmp_path / "out", tmp_path / "cache", notes)
    assert [comparable(cell) for cell in again] == [comparable(cell) for cell in found]
    assert passes == ["iso_c"] * 4


def test_every_method_says_what_changes_its_state() -> None:
    for method in METHODS:
        parameters = method.Parameters()
        named = method.state_parameters(parameters)
        assert set(named) <= set(type(parameters).model_fields)
        assert named.get("others") in {None, "keep"}
    assert set(method_named("wudi").state_parameters(method_named("wudi").Parameters())) == {"weight", "precision"}
