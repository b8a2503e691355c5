"""Tests of `hubmerge hub serve` with limited bandwidth and failing requests."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hubmerge.cli.main import main


@pytest.mark.parametrize(
    "options", [("--faults", "2"), ("--faults", "-0.1"), ("--faults", "x"), ("--throttle", "0"), ("--throttle", "nan")]
)
def test_invalid_numbers(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hub", "serve", *options]) == 2
    assert options[0] in capsys.readouterr().err


def status_of(address: str) -> int | None:
    """Return the status of an answer, None if the connection broke."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (http.client.HTTPException, OSError):
        return None
    return 200


def test_every_request_fails_on_request(tmp_path: Path) -> None:
    options = ["--root", str(tmp_path / "hub"), "--faults", "1", "--fault-seed", "4", "--throttle", "5"]
    command = [sys.executable, "-m", "hubmerge", "hub", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            text = process.stdout.readline() + process.stdout.readline()
            endpoint = re.search(r"HF_ENDPOINT=(\S+)", text)
            assert endpoint is not None
            statuses = {status_of(f"{endpoint[1]}/api/models") for _ in range(12)}
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
    assert statuses & {429, 500, 503}
