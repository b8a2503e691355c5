"""What commands show while they work: live in a terminal, one line in a notebook, lines elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from hubmerge.cli.main import main
from hubmerge.support import displays
from hubmerge.support.console import MOST_LINES, RichConsole
from hubmerge.support.progress import waiting
from tests.checks import every
from tests.cli.terminal import Terminal, as_terminal, start_in
from tests.stage import Stage

PROGRAM = """
import sys, time
from hubmerge.support import interrupts
from hubmerge.support.console import RichConsole
console = RichConsole(title="run")
with interrupts.handled(program=True):
    try:
        with console.stage("steps", 8) as steps, console.stage("step 1: merge " + "x" * 200, 10, "tensors") as advance:
            for number in range(3):
                advance.show(f"model.layers.{number}.weight")
                advance(1)
                time.sleep(0.3)
            console.note("warning: step 1: far off")
            print("to the error output", file=sys.stderr)
            print("ready", flush=True)
            END
    except (KeyboardInterrupt, ValueError):
        pass
    finally:
        console.close()
print("after", flush=True)
"""


@pytest.mark.parametrize(
    ("columns", "end"),
    [(80, "pass"), (40, "raise ValueError"), (80, "time.sleep(600)"), (40, "time.sleep(600)")],
    ids=["end", "error", "interrupt", "narrow interrupt"],
)
def test_a_terminal_is_left_clean(columns: int, end: str) -> None:
    terminal = Terminal(columns)
    process = start_in(terminal, [sys.executable, "-c", PROGRAM.replace("END", end)])
    terminal.wait_for("ready")
    if "sleep" in end:
        process.send_signal(signal.SIGINT)
    process.wait(60)
    screen = terminal.close()
    stopped = ["stopping after the current tensor; press again to stop now"] if "sleep" in end else []
    shown = [line for line in screen.text.splitlines() if line]
    assert "".join(shown) == "".join(["warning: step 1: far off", "to the error output", "ready", *stopped, "after"])
    assert screen.cursor
    assert screen.wrapped <= len(stopped)  # that sentence alone may be longer than the terminal is wide
    assert "3/10 tensors" in terminal.content
    assert 1 <= screen.tallest <= MOST_LINES


def test_a_run_in_a_terminal_shows_steps_tensors_and_bytes(
    stage: Stage, tmp_path: Path, repo_name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = stage.write(tmp_path, stage.recipe(repo_name("merged"), entries=tuple(stage.towers)[:2]))
    monkeypatch.setattr(displays, "REFRESHES_PER_SECOND", 100)
    with as_terminal(80, monkeypatch.setenv) as terminal:
        status = main(["run", str(recipe), "--work-dir", str(tmp_path / "work")])
    screen = terminal.close()
    assert status == 0, screen.text
    seen = terminal.content
    assert "steps" in seen
    assert "0/2" in seen
    assert "tensors" in seen
    assert screen.cursor
    assert screen.tallest <= MOST_LINES
    lines = screen.text.splitlines()
    assert [line for line in lines if " of 2: " in line] == [
        f"step {number} of 2: {name}" for number, name in enumerate([*stage.towers][:2], start=1)
    ]
    assert not any(" s)" in line for line in lines)
    assert sum(line.startswith("next ") for line in lines) == 1


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("CI", "true"), ("TERM", "dumb")])
def test_lines_are_plain_where_a_display_is_not_wanted(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_terminal(80, monkeypatch.setenv) as terminal:
        monkeypatch.setenv(name, value)
        console = RichConsole(title="run")
        with console.stage("merge"):
            console.note("warning: odd")
        console.close()
    terminal.close()
    lines = terminal.content.splitlines()
    assert lines[0] == "warning: odd"
    assert lines[1].startswith("  merge (")
    assert "\x1b" not in terminal.content


def test_long_work_prints_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert displays.HEARTBEAT_SECONDS < 10
    monkeypatch.setattr(displays, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(displays.Heartbeat, "seconds", 0.05)
    console = RichConsole(title="plan")
    found = ""
    end = time.monotonic() + 60
    with console.stage("merge", 10, "tensors") as advance:
        advance(4)
        while found.count("  ... merge  ") < 2 and time.monotonic() < end:
            time.sleep(0.05)
            found += capsys.readouterr().out
    while "  ... plan" not in found and time.monotonic() < end:
        time.sleep(0.05)
        found += capsys.readouterr().out
    console.close()
    assert "4/10 tensors" in found
    assert "  ... plan" in found


def test_a_line_says_what_is_loaded_and_what_is_waited_for() -> None:
    console = RichConsole(title="plan")
    assert console.lines(80) == ["plan: load libraries"]
    with console.stage("resolve commits"):
        assert console.lines(80) == ["resolve commits"]
        with waiting("no usable answer from http://127.0.0.1:9: attempt 2 of 6"):
            assert console.lines(80)[-1] == "  no usable answer from http://127.0.0.1:9: attempt 2 of 6"
            assert every(len(line) <= 30 for line in console.lines(30))
    assert console.lines(80) == ["plan"]
    console.close()


def test_a_quiet_command_prints_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("merge_method: wudi\nbase_model: a/b\nmodels: [{model: a/c}]\n", encoding="utf-8")
    assert main(["check", str(recipe), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def executed(code: str, folder: Path) -> list[Any]:
    """Run a cell in a kernel and return its outputs."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return list(client.execute().cells[0].outputs)


NOTEBOOK = """
import time
from hubmerge.api.progress import open_progress
progress = open_progress("auto")
with progress.stage("steps", 3) as steps, progress.stage("step 1: merge shapes", 10, "tensors") as advance:
    advance(4)
    time.sleep(1.5)
progress.note("not shown")
print("result")
"""


def test_a_notebook_has_a_line_of_text_and_no_widget(tmp_path: Path) -> None:
    outputs = executed(NOTEBOOK, tmp_path)
    assert {output.output_type for output in outputs} == {"stream"}
    text = "".join(output.text for output in outputs)
    assert "\rsteps: 0/3, step 1: merge shapes" in text
    assert "4/10 tensors" in text
    assert "not shown" not in text
    assert text.endswith("result\n")
    assert "\x1b" not in text


@pytest.mark.slow
def test_a_run_in_a_notebook(stage: Stage, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    call = "steps = list(hubmerge.run('{}', work_dir='{}'))\nprint(len(steps))".format(recipe, tmp_path / "work")
    outputs = executed(f"import hubmerge\n{call}", tmp_path)
    assert {output.output_type for output in outputs} == {"stream"}
    assert "".join(output.text for output in outputs).endswith("3\n")
