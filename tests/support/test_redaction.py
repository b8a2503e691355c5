"""Text from outside on a terminal and in JSON lines."""

from __future__ import annotations

import json

import pytest

from hubmerge.cli.output import JsonLines, print_error
from hubmerge.errors import CheckpointError
from hubmerge.support.console import RichConsole
from hubmerge.support.redaction import for_json, for_terminal

HOSTILE = "name\x1b]0;title\x07\x1b[2J\x9b31m\rover\x08\x7f\u202eback\u2066\u2028\ud800"
CONTROL = {character for character in HOSTILE if not character.isprintable()}


def test_controls_become_escapes_and_text_stays() -> None:
    assert for_terminal("two\nlines\tand ünïcode 語") == "two\nlines\tand ünïcode 語"
    assert for_terminal(HOSTILE).isprintable()
    assert for_terminal(HOSTILE).startswith(r"name\x1b]0;title\x07")


def test_output_of_commands_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console = RichConsole()
    console.note(HOSTILE)
    with console.stage(HOSTILE):
        pass
    print_error(CheckpointError(HOSTILE, hint=HOSTILE), as_json=False)
    shown = "".join(capsys.readouterr())
    assert shown.count("title") == 4
    assert not CONTROL & set(shown)


def test_json_lines_hold_no_control_characters_and_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    JsonLines().note(HOSTILE)
    print_error(CheckpointError(HOSTILE), as_json=True)
    lines = capsys.readouterr().out
    assert not CONTROL & set(lines)
    note, error = map(json.loads, lines.splitlines())
    assert (note["text"], error["message"]) == (HOSTILE, HOSTILE)
    assert for_json(json.dumps({"a": "语"}, ensure_ascii=False)) == '{"a": "语"}'
