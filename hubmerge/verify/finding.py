"""Findings of single checks, and the verdict that they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hubmerge.support.text import counted, short_commit

Result = Literal["same", "differs", "unknown"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        subject: what was checked, such as "weights" or "card".
        verdict: "same", "differs", or "unknown" if the check was not possible.
        detail: one sentence about the result.
    """

    subject: str
    verdict: Result
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict:<8} {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Verdict:
    """Result of the verification of one published step.

    Attributes:
        repo: the repo, owner/name.
        step: the number of the step, 0 if the report cannot be read.
        commit: the commit of the repo that was verified.
        findings: the results of all checks.
        recomputed: True if the step was computed again and compared.
    """

    repo: str
    step: int
    commit: str
    findings: tuple[Finding, ...]
    recomputed: bool

    @property
    def differences(self) -> tuple[Finding, ...]:
        """Findings of everything that differs."""
        return tuple(finding for finding in self.findings if finding.verdict == "differs")

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """Findings of the checks that were not possible."""
        return tuple(finding for finding in self.findings if finding.verdict == "unknown")

    @property
    def verified(self) -> bool:
        """True if every check was possible and nothing differs."""
        return not self.differences and not self.unknown

    @property
    def title(self) -> str:
        """Name of the verified step and its commit."""
        return title(self.repo, self.step, self.commit)

    @property
    def summary(self) -> str:
        """Verdict in one line, with the number of differences and of checks that were not possible."""
        verdict = "NOT verified" if self.differences else "partly verified" if self.unknown else "verified"
        how = "recomputed and compared" if self.recomputed else "by digests, chain and lock"
        numbers = f"{counted(len(self.differences), 'difference')}, {counted(len(self.unknown), 'check')} not possible"
        return f"{verdict} ({how}): {numbers}"

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {finding}" for finding in self.findings), self.summary])


def title(repo: str, step: int, commit: str) -> str:
    """Return the line that names the step that is verified."""
    if not commit:
        return f"{repo}: step {step}" if step else repo
    what = f"step {step} at commit" if step else "commit"
    return f"{repo}: {what} {short_commit(commit)}"
