"""The text of `hubmerge plan` fits one screen; `--verbose` and `--json` have everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubmerge as library
from hubmerge.plan import durations, machine, speeds
from hubmerge.plan.screen import ROWS, shortened
from hubmerge.stream.task_steps import first_choice
from hubmerge.support.text import elided, readable_seconds
from merge_recipes import Recipe
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
COLUMNS, LINES = 100, 40


def screen_of(output: str) -> list[str]:
    """Return the lines of a plan, without those of the stages of work before it."""
    lines = output.splitlines()
    return lines[next(number for number, line in enumerate(lines) if " on " in line and "(" in line) :]


def test_a_plan_of_eight_models_is_one_screen(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Any) -> None:
    repo, models = repo_name("merged"), [*stage.towers.items()]
    entries = [{"model": models[one % 3][1], "name": f"{models[one % 3][0]}-{one}"} for one in range(8)]
    recipe = stage.recipe(repo, models=entries, parameters={"alpha": 0.25})
    for task in recipe["evaluate"]["tasks"]:
        task["model"] = f"{task['name']}-{next(i for i, (name, _) in enumerate(models) if name == task['name'])}"
    status, output, errors = hubmerge("plan", stage.write(tmp_path, recipe))
    assert status == 0, errors
    lines = screen_of(output)
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith(f"opcm on {stage.base} (")
    assert lines[1].startswith("with     alpha 0.25; defaults: ")
    rows = [line.split() for line in lines if line.strip().split(" ")[0].isdigit() and "/" in line]
    assert [row[1] for row in rows] == [entry["name"] for entry in entries]
    assert every(row[2] in stage.towers.values() and len(row[3]) == 12 for row in rows)
    text = "\n".join(lines)
    for expected in (
        "merged   24 weight matrices",
        "kept     23 tensors of the base model",
        "1  no checkpoint has visual_projection",
        "license  apache-2.0 for the merged model",
        "evaluate 3 tasks, 24 examples: ",
        "download ",
        "disk     ",
        "memory   about ",
        "time     merge: about ",
        "evaluation: about ",
        f"publish  every step to {repo} (new, public)",
        "step-01 to step-08, about ",
    ):
        assert expected in text
    assert lines[-1] == "problems none found"


def test_warnings_are_the_last_lines_and_details_are_verbose(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: 1000)
    path = stage.write(tmp_path, stage.recipe(None, entries=tuple(stage.towers)[:2]))
    status, output, errors = hubmerge("plan", path)
    assert status == 0, errors
    assert output.splitlines()[-1].endswith("of memory; this machine has 1.0 kB")
    assert output.splitlines()[-1].startswith("warning  the run needs about ")
    assert "publish  nothing; the merged model stays on this machine" in output
    assert "text_model.*" not in output
    details = hubmerge("plan", path, "--verbose")[1]
    assert "text_model.* (20: " in details
    assert details.splitlines()[-1] == output.splitlines()[-1]
    plan = json.loads(hubmerge("plan", path, "--json")[1].splitlines()[-2])
    assert plan["event"] == "plan"
    assert plan["warnings"] == [output.splitlines()[-1].removeprefix("warning  ")]
    assert plan["parameters"]["alpha"] == "0.5"
    assert (plan["durations"]["examples"], plan["publish"]) == (8 * (2 + 2 + 1 + 2), None)


def test_a_published_step_is_done_and_the_next_one_is_planned(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Any
) -> None:
    repo, names = repo_name("merged"), tuple(stage.towers)
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, entries=names[:1], evaluate=None)))[0] == 0
    lines = screen_of(hubmerge("plan", stage.write(tmp_path, stage.recipe(repo, entries=names[:2], evaluate=None)))[1])
    done, missing = (next(line for line in lines if f" {name} " in line) for name in names[:2])
    assert done.split()[-1] == "done"
    assert missing.split()[-1] != "done"
    assert f"publish  every step to {repo}" in lines
    assert any(line.startswith("         step-02, about ") for line in lines)


def test_a_joint_merge_lists_its_models(stage: Stage) -> None:
    plan = library.plan(
        stage.recipe(
            None, merge_method="ties", form="joint", parameters={"weight": 1.0, "int8_mask": True}, evaluate=None
        ),
        progress=None,
    )
    text = str(plan)
    assert every(reference in text for reference in stage.towers.values())
    assert text == plan.text != plan.details
    assert "state" not in text
    assert "int8_mask" not in text  # it has no effect, and no default to name


@pytest.mark.parametrize("scored", [False, True])
def test_the_scores_of_read_outs_are_counted(stage: Stage, scored: bool) -> None:
    recipe = stage.recipe(None, merge_method="wudi")
    tasks = recipe["evaluate"]["tasks"]
    alone = library.plan(recipe, progress=None).data["durations"]["examples"]
    if not scored:
        tasks.append({**tasks[0], "name": "held-out", "validation": True})
    recipe["read"] = {"choose": [{"method": "wudi"}, {"method": "iso_c"}], "on": tasks[-1]["name"]}
    plan = library.plan(recipe, progress=None)
    assert plan.data["durations"]["examples"] == alone + 8 * 2 * 3
    assert every(
        f"read     by the best on {tasks[-1]['name']} of: wudi; iso_c\n" in text for text in (plan.text, plan.details)
    )


@pytest.mark.parametrize(("head", "step"), [(None, 1), ("base", 1), ("a", 1), ("c", 3)])
def test_a_read_out_is_chosen_from_the_step_of_the_head_on(head: str | None, step: int) -> None:
    task = {"name": "t", "kind": "text-classification", "dataset": {"path": "me/texts"}, "validation": True}
    recipe = Recipe.model_validate_json(
        json.dumps(
            {
                "merge_method": "wudi",
                "base_model": "me/base",
                "models": [{"model": f"me/{name}"} for name in "abc"],
                "evaluate": {"tasks": [task if head is None else {**task, "head": head}]},
                "read": {"choose": [{"method": "wudi"}, {"method": "iso_c"}], "on": "t"},
            }
        )
    )
    assert first_choice(recipe) == step


def test_a_measured_speed_replaces_the_count(
    stage: Stage, empty_cache: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = stage.recipe(None)
    first = library.plan(recipe, progress=None).data["durations"]
    assert (first["merge_basis"], first["evaluation_basis"]) == (durations.COUNTED, durations.COUNTED)
    library.run(recipe, work_dir=tmp_path / "work", progress=None).finish()
    second = library.plan(recipe, progress=None).data["durations"]
    assert (second["merge_basis"], second["evaluation_basis"]) == (durations.MEASURED, durations.MEASURED)
    assert second["examples"] == first["examples"] == 8 * (3 + 2 + 1 + 2 * 3)
    speeds.record_scores("zero-shot-image-classification", 1000, 10, 5.0)
    assert speeds.seconds_per_example("zero-shot-image-classification", 1100) == 0.5
    assert speeds.seconds_per_example("zero-shot-image-classification", 100_000) is None
    speeds.record_merge("opcm", 2.0, 3.0)
    assert speeds.merge_factor("opcm", 2.0) == 1.5
    assert speeds.merge_factor("wudi", 2.0) is None


def test_long_tables_and_names_are_shortened() -> None:
    rows = [(str(step), f"entry-{step}", "model") for step in range(1, 501)]
    short = shortened(rows, ROWS)
    assert len(short) == ROWS
    assert short[0][0] == "1"
    assert short[-1][0] == "500"
    assert ("...", f"{500 - ROWS + 1} more", "") in short
    assert shortened(rows[:ROWS], ROWS) == rows[:ROWS]
    assert [elided("abcdefghij", most) for most in (3, 7, 10)] == ["abc", "ab...ij", "abcdefghij"]
    assert [readable_seconds(seconds) for seconds in (0, 59.7, 3600, 90_000)] == ["1 s", "1 min", "1 h", "1 d 1 h"]
