"""A stream published by version 0.1.0 extends and verifies with this version (see `tests/fixtures/README.md`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.older_stream import METHODS, OlderHub, older_hub
from tests.provenance.keys import make_key


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OlderHub]:
    with older_hub(tmp_path_factory.mktemp("older")) as hub:
        yield hub


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 3])
def test_older_steps_verify(older: OlderHub, method: str, step: int, tmp_path: Path) -> None:
    release = f"local/{method.replace('_', '-')}-3@step-{step:02d}"
    output = older.hubmerge("verify", release, "--work-dir", tmp_path)
    assert "differs" not in output
    assert "unknown" not in output


@pytest.mark.slow
def test_an_older_step_is_signed_and_extends(tmp_path: Path) -> None:
    """All its files are signed; the signature goes with the next step."""
    with older_hub(tmp_path / "older") as older:
        sign_and_extend(older, tmp_path)


def sign_and_extend(older: OlderHub, tmp_path: Path) -> None:
    key, name = make_key(tmp_path), "local/ties-2"
    older.hubmerge("sign", name, "--key", key.private)
    before = older.hubmerge("verify", f"{name}@step-02", "--quick", "--key", key.public, "--work-dir", tmp_path)
    assert "same     signature: " in before
    assert "provenance" not in before
    older.hubmerge("run", older.folder / "recipes" / "ties.yaml", "--work-dir", tmp_path / "work")
    assert "model.sig" not in older.files(name, "step-03")
    assert older.files(name, "step-03") == older.files("local/ties-3", "step-03")


@pytest.mark.parametrize("method", METHODS)
def test_older_stream_extends_to_equal_weights_and_digests(older: OlderHub, method: str, tmp_path: Path) -> None:
    name = f"local/{method.replace('_', '-')}"
    older.hubmerge("run", older.folder / "recipes" / f"{method}.yaml", "--work-dir", tmp_path / "work")
    for step in (1, 2, 3):
        revision = f"step-{step:02d}"
        assert older.files(f"{name}-2", revision) == older.files(f"{name}-3", revision)
    # Every state digest, weight digest, norm and score of all three steps.
    assert older.report(f"{name}-2") == older.report(f"{name}-3")
    older.hubmerge("verify", f"{name}-2@step-03", "--work-dir", tmp_path / "verify")
