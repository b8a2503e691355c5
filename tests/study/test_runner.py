"""Whole studies of a tiny stream: results that are kept, resumed, and the same as those of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hubmerge.cli.main import main
from hubmerge.errors import HubmergeError, MachineError, UsageError
from hubmerge.report.report import RunReport
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study, run_study
from hubmerge.study.results import CellResult, ResultsFile
from hubmerge.support.progress import SilentProgress
from tests.checks import every
from tests.cli.test_events import lines_of

Write = Callable[..., Path]
PNG = b"\x89PNG\r\n\x1a\n"


def run(path: Path, out: Path, *, memory_bytes: float | None = None) -> list[CellResult]:
    study = load_study(path, installed_catalog())
    return run_study(study, out, out.parent / "cache", SilentProgress(), memory_bytes=memory_bytes)


def comparable(results: list[CellResult]) -> list[dict[str, object]]:
    return [{**vars(result), "seconds": 0} for result in results]


def test_a_cell_is_what_a_run_of_its_recipe_gives(tmp_path: Path, write_study: Write, recipe_file: Path) -> None:
    methods = [{"method": "opcm", "parameters": {"alpha": [0.3]}}, {"method": "ties"}]
    results = run(write_study(methods=methods, orders=1, first_seed=4), tmp_path / "out")
    recipe = yaml.safe_load(recipe_file.read_text(encoding="utf-8"))
    del recipe["publish"]
    assert [result.method for result in results] == ["opcm", "ties"]
    for result in results:
        changes = {"merge_method": result.method, "parameters": result.parameters, "order": "shuffled", "seed": 4}
        path = tmp_path / f"{result.method}.yaml"
        path.write_text(yaml.safe_dump({**recipe, **changes}), encoding="utf-8")
        assert main(["run", str(path), "--work-dir", str(tmp_path / "work"), "--quiet"]) == 0
        [report_file] = (tmp_path / "work").glob(f"{result.method}-*/report.json")
        report = RunReport.from_json(report_file.read_text(encoding="utf-8"))
        assert [step.name for step in report.steps] == list(result.order)
        assert [step.scale for step in report.steps] == [step.scale for step in result.steps]
        assert every(step.scores for step in report.steps)
        for step in report.steps:
            for task, scores in step.scores.items():
                assert result.accuracies.value(step.step, task) == scores["accuracy"]
        assert result.average == report.accuracy_matrix().average(4)
        assert result.backward_transfer == pytest.approx(report.accuracy_matrix().backward_transfer())


def test_only_what_is_missing_is_computed(tmp_path: Path, write_study: Write) -> None:
    out = tmp_path / "out"
    first = run(write_study(methods=[{"method": "opcm"}], orders=2), out)
    before = (out / "results.jsonl").read_text(encoding="utf-8")
    assert run(write_study(methods=[{"method": "opcm"}], orders=2), out) == first
    assert (out / "results.jsonl").read_text(encoding="utf-8") == before
    named = [{"method": "opcm", "name": "ours"}, {"method": "weight_average"}]
    grown = run(write_study(methods=named, orders=2), out)
    assert [result.series for result in grown] == ["ours", "ours", "weight_average", "weight_average"]
    assert grown[0].digest == first[0].digest
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["references", *["cell"] * 4]


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path, write_study: Write) -> None:
    path = write_study(methods=[{"method": "opcm"}], orders=3, score="last")
    through = run(path, tmp_path / "through")
    out = tmp_path / "cut"
    out.mkdir()
    text = (tmp_path / "through" / "results.jsonl").read_bytes()
    lines = text.splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    assert comparable(run(path, out)) == comparable(through)
    assert len(ResultsFile(out / "results.jsonl").cells) == len({result.order for result in through})


def test_no_order_is_counted_twice(tmp_path: Path, write_study: Write) -> None:
    results = run(write_study(methods=[{"method": "opcm"}], orders=4, tasks=[2], score="last"), tmp_path / "out")
    assert len(results) == len({result.order for result in results}) == 2
    assert len(ResultsFile(tmp_path / "out" / "results.jsonl").cells) == 2


def test_states_in_folders_give_the_same_results(tmp_path: Path, write_study: Write) -> None:
    path = write_study(methods=[{"method": "opcm"}, {"method": "ties"}], orders=1, tasks=[3])
    in_memory = run(path, tmp_path / "memory")
    in_folders = run(path, tmp_path / "folders", memory_bytes=0)
    assert comparable(in_folders) == comparable(in_memory)
    assert list((tmp_path / "folders" / "states").iterdir()) == []
    with pytest.raises(MachineError, match="too little memory"):
        run(write_study(methods=[{"method": "opcm", "perturb": [1]}]), tmp_path / "folders", memory_bytes=0)


def test_rounding_and_perturbing_change_the_state_a_little(tmp_path: Path, write_study: Write) -> None:
    methods = [
        {"method": "opcm", "name": "exact"},
        {"method": "opcm", "name": "rounded", "round_to": "float32"},
        {"method": "opcm", "name": "perturbed", "perturb": [1, 2]},
    ]
    exact, rounded, *perturbed = run(write_study(methods=methods, score="last"), tmp_path / "out")
    assert len(perturbed) == 2
    for other in (rounded, *perturbed):
        scale, expected = other.steps[-1].scale, exact.steps[-1].scale
        assert scale != expected
        assert scale == pytest.approx(expected, rel=1e-4)
    assert exact.backward_transfer is None
    assert exact.forgetting is None


def test_tables_and_plots(tmp_path: Path, write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    methods = [{"method": "opcm", "parameters": {"alpha": [0.2, 0.8]}}, {"method": "weight_average"}]
    path = write_study(methods=methods, orders=2, tasks=[2, 3])
    assert main(["study", str(path), "--cache", str(tmp_path / "cache")]) == 0
    out = tmp_path / "study"
    names = {"accuracy_per_step", "drift", "similarity", "orders", "sweep_alpha", "matrix_01", "matrix_02", "matrix_03"}
    assert {file.stem for file in out.glob("*.png")} == names
    assert every(file.read_bytes().startswith(PNG) for file in out.glob("*.png"))
    table = (out / "tables.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:6]] == [
        "| base model",
        "| own checkpoints",
        "| opcm, alpha 0.2",
        "| opcm, alpha 0.8",
        "| weight_average",
    ]
    assert len(rows) == 1 + 2 * 5
    assert table.splitlines()[0] in capsys.readouterr().out
    assert main(["study", str(path), "--cache", str(tmp_path / "cache"), "--json"]) == 0
    events = lines_of(capsys.readouterr().out)
    (data,) = (event for event in events if event["event"] == "study")
    assert [row["label"] for row in data["rows"]] == [row[0].removeprefix("| ") for row in rows[1:]]
    assert [f"{100 * row['accuracy']['mean']:.1f}" for row in data["rows"]] == [row[3].split()[0] for row in rows[1:]]
    assert data["rows"][2]["merges"] == 2
    assert data["rows"][3]["to_first"]["low"] <= data["rows"][3]["to_first"]["mean"]
    assert not any("| weight_average" in event.get("text", "") for event in events)
    assert {"rows": data["rows"], "definitions": data["definitions"]} == json.loads((out / "tables.json").read_text())
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    assert latex.count(r"\\") == len(rows)
    assert r"weight\_average" in latex
    assert r"\pm" in latex
    page = (out / "report.html").read_text(encoding="utf-8")
    for anchor in ("scores", "curves", "sweeps", "orders", "similarities", "matrices"):
        assert f'id="{anchor}"' in page


def test_a_results_file_of_something_else(tmp_path: Path, write_study: Write) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.jsonl").write_text('{"kind": "other"}\n', encoding="utf-8")
    with pytest.raises(HubmergeError, match=r"results\.jsonl:1: not a result of a study"):
        run(write_study(methods=[{"method": "opcm"}]), out)


def test_a_page_of_somebody_is_not_replaced(tmp_path: Path, write_study: Write) -> None:
    """It is found before anything is merged."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("<html>mine</html>", encoding="utf-8")
    with pytest.raises(UsageError, match="is not a page that hubmerge wrote"):
        run(write_study(methods=[{"method": "opcm"}]), tmp_path / "out")
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_an_out_that_cannot_be_made(tmp_path: Path, write_study: Write) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot create the folder"):
        run(write_study(methods=[{"method": "opcm"}]), tmp_path / "file" / "out")


def test_joint_methods_are_merged_anew_at_every_step(tmp_path: Path, write_study: Write) -> None:
    methods = [
        {"method": "weight_average"},
        {"method": "tsv_m"},
        {"method": "slerp", "parameters": {"t": 0.5}},
    ]
    cells = {cell.method: cell for cell in run(write_study(methods=methods, tasks=[2]), tmp_path / "out")}
    assert cells["weight_average"].steps[0].scale == 1.0
    assert [step.scale for step in cells["tsv_m"].steps] == [None, None]
    assert len(cells["tsv_m"].matrix["rows"]) == 2
    assert len(cells["slerp"].matrix["rows"]) == 1
