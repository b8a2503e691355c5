"""Samples of tasks in reports, cards and streams that go on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download

from hubmerge.errors import EvaluationError
from hubmerge.plan.samples import as_recorded, check_sample, sample_report
from hubmerge.report.inputs import SampleReport
from hubmerge.report.report import ModelReport, RunReport, TaskReport
from merge_recipes import Task
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
BALANCED = SampleReport("balanced", 8, 0)


def task(name: str = "pets", **dataset: Any) -> Task:
    kind = "zero-shot-image-classification"
    return Task.model_validate({"name": name, "kind": kind, "dataset": {"path": "me/pets", **dataset}})


def recorded(sampling: SampleReport | None, name: str = "pets") -> TaskReport:
    return TaskReport(name, "zero-shot-image-classification", 1, "me/pets", examples=8, sampling=sampling)


def test_report_card_and_later_steps(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    first = next(iter(stage.towers))
    recipe = stage.recipe(repo := repo_name("target"), entries=(first,))
    path = stage.write(tmp_path, recipe)
    assert hubmerge("run", path)[0] == 0
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["tasks"][0]["sampling"] == {"rule": "balanced", "max_examples": 8, "seed": 0}
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert f"Examples of {first}: drawn with seed 0, equally many of each class as far as the split has them." in card
    # The steps of a stream are scored on the same examples.
    names = list(stage.towers)[:2]
    for change, says in (
        ({"seed": 1}, "(seed 1)"),
        ({"max_examples": 9}, "9 examples"),
        ({"max_examples": None}, "all"),
    ):
        longer = stage.recipe(repo, entries=tuple(names))
        longer["evaluate"]["tasks"][0]["dataset"].update(change)
        status, _, errors = hubmerge("plan", stage.write(tmp_path, longer))
        assert status == 2
        assert "evaluate.tasks[0].dataset" in errors
        assert "the steps so far were scored on a balanced sample of 8 examples (seed 0)" in errors
        assert says in errors
        assert "hint: write `dataset: {max_examples: 8, seed: 0}`" in errors


def test_streams_of_version_0_1_0_keep_the_first_examples() -> None:
    older = [recorded(None)]
    for one in (task(max_examples=8), task("new", max_examples=8)):
        assert as_recorded(one, older).dataset.sample == "first"
        assert sample_report(one.dataset, older) is None
        check_sample(one, older)
    assert as_recorded(task(max_examples=8), []).dataset.sample == "balanced"
    assert as_recorded(task(max_examples=8), [recorded(BALANCED)]).dataset.sample == "balanced"
    asked = task("new", max_examples=8, seed=3)
    assert as_recorded(asked, older).dataset.sample == "balanced"
    assert sample_report(asked.dataset, older) == SampleReport("balanced", 8, 3)
    check_sample(asked, older)
    check_sample(task(max_examples=8, sample="first"), older)
    with pytest.raises(EvaluationError, match=r"scored on the first 8 examples, .* a balanced sample of 8"):
        check_sample(task(max_examples=8, sample="balanced"), older)


@pytest.mark.parametrize(
    ("before", "dataset"),
    [
        (BALANCED, {}),
        (BALANCED, {"max_examples": 9}),
        (BALANCED, {"max_examples": 8, "seed": 1}),
        (BALANCED, {"max_examples": 8, "sample": "first"}),
        (SampleReport("all"), {"max_examples": 8}),
        (SampleReport("first", 8), {"max_examples": 8}),
    ],
)
def test_another_sample_is_refused(before: SampleReport, dataset: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError, match="the scores could not be compared") as caught:
        check_sample(task(**dataset), [recorded(before)])
    assert before.text in str(caught.value)
    assert caught.value.hint is not None
    assert before.keys in caught.value.hint


def test_reports_without_samples_keep_their_bytes() -> None:
    report = RunReport(ModelReport("me/base", "1" * 40), "opcm", "sha256:0", tasks=(recorded(None), recorded(BALANCED)))
    values = json.loads(report.to_json())
    assert "sampling" not in values["tasks"][0]
    assert RunReport.from_json(report.to_json()).tasks == report.tasks
    assert not RunReport.from_json(report.to_json()).has_broken_seal
