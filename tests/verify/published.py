"""Types of the fixtures, the content of a published file, and the files of a changed report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hubmerge.report.report import RunReport

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
Verify = Callable[..., tuple[int, str, str]]
Copy = Callable[..., str]


def published(repo: str, name: str, revision: str = "main") -> bytes:
    """Return the content of a file of a repo."""
    from huggingface_hub import hf_hub_download  # reads HF_ENDPOINT when it is imported, which is set later

    return Path(hf_hub_download(repo, name, revision=revision)).read_bytes()


def report_files(report: RunReport) -> dict[str, bytes]:
    """Return the files that hold a report of few steps, sealed again as a forger would do it."""
    texts = {
        name: step.history_text(report.steps[step.step - 2].digest if step.step > 1 else None)
        for name, step in zip(report.history_files, report.steps, strict=True)
    }
    return {name: text.encode() for name, text in {**texts, "hubmerge.json": report.to_json()}.items()}
