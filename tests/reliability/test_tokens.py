"""Search for the access token in all output of a run: logs, errors, cards, locks, states, caches, command lines."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.cli.main import main
from hubmerge.localhub import LocalHub
from hubmerge.support.redaction import without_token
from tests.checks import every
from tests.reliability.conftest import RequestHook
from tests.run_launcher import Places, RunLauncher
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Quick = Callable[..., tuple[str, Path]]


def places_of(token: str, folder: Path) -> list[Path]:
    """Return every file below a folder whose name or content contains the token."""
    secret = token.encode()
    found = [path for path in folder.rglob("*") if token in path.name]
    return found + [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def command_lines() -> bytes:
    """Return the arguments of all processes, as `ps` shows them."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(texts)


def verbose_places(folder: Path) -> Places:
    """Return places below a folder for a run with the most verbose logging of the libraries."""
    return {
        "output": folder / "output",
        "cache": folder / "cache",
        "TMPDIR": str(folder),
        "HF_DEBUG": "1",
        "HF_HUB_VERBOSITY": "debug",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
    }


def output_options(folder: Path) -> list[str | Path]:
    """Return options that write all kinds of output below a folder."""
    places = {"--work-dir": "work", "--out": "out", "--summary": "summary.md"}
    return [word for option, name in places.items() for word in (option, folder / name)]


@pytest.mark.parametrize("ending", ["well", "error", "killed"])
def test_output_of_a_run_does_not_contain_the_token(
    stage: Stage,
    launcher: RunLauncher,
    request_hook: RequestHook,
    local_hub: LocalHub,
    tmp_path: Path,
    repo_name: Callable[..., str],
    ending: str,
) -> None:
    repo = repo_name("target")
    recipe = stage.write(tmp_path, stage.recipe(repo, entries=tuple(stage.towers)[:2]))
    seen = []

    def look() -> None:
        seen.append(command_lines())
        if ending == "error":
            HfApi().delete_repo(repo)
        elif ending == "killed":
            os.kill(pid, signal.SIGKILL)

    request_hook.set(f"POST /api/models/{repo}/commit/main", look)
    pid = launcher.start("run", recipe, *output_options(tmp_path), **verbose_places(tmp_path))
    status = launcher.wait()
    assert status == {"well": 0, "error": 3, "killed": -signal.SIGKILL}[ending], (tmp_path / "output").read_text()
    assert seen
    assert b"pytest" in seen[0]
    assert local_hub.token.encode() not in seen[0]
    assert places_of(local_hub.token, tmp_path) == []
    for branch in ("main", "hubmerge-state") if ending == "well" else ():
        folder = HfApi().snapshot_download(repo, revision=branch, local_dir=tmp_path / "published" / branch)
        assert any(Path(folder).iterdir())
        assert places_of(local_hub.token, Path(folder)) == []
    (tmp_path / "proof").write_text(f"Bearer {local_hub.token}")
    assert places_of(local_hub.token, tmp_path) == [tmp_path / "proof"]


def test_details_of_an_internal_error_do_not_contain_the_token(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    from hubmerge.api import recipes

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"Authorization: Bearer {local_hub.token} and hf_anotherOneOfSomebody")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(recipes, "check", fail)
    for output_format in ("--quiet", "--json"):
        assert main(["check", "recipe.yaml", output_format]) == 1
        shown = "".join(capsys.readouterr())
        assert "internal error" in shown
        assert local_hub.token not in shown
        assert "anotherOne" not in shown
    written = list(tmp_path.glob("hubmerge-error-*.txt"))
    assert len(written) == 2
    assert places_of(local_hub.token, tmp_path) == []
    assert every("anotherOne" not in path.read_text() and "RuntimeError" in path.read_text() for path in written)


def test_secrets_of_the_environment_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "no-usual-form-of-token")
    monkeypatch.setenv("HUBMERGE_WEBHOOK_SECRET", "a-secret-of-webhooks")
    text = "x no-usual-form-of-token y a-secret-of-webhooks z hf_abcdefghij hf_api"
    assert without_token(text) == "x hf_*** y hf_*** z hf_*** hf_api"


def test_message_of_an_internal_error_survives_a_failing_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import tempfile

    from hubmerge.api import recipes

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(recipes, "check", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert main(["check", "recipe.yaml", "--json"]) == 1
    event = json.loads(capsys.readouterr().out)
    assert "odd" in event["message"]
    assert "could not be written" in event["hint"]
