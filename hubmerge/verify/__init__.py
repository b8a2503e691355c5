"""Verification of a published step."""

from __future__ import annotations

from hubmerge.verify.finding import Finding, Verdict
from hubmerge.verify.verifier import verify_step

__all__ = ["Finding", "Verdict", "verify_step"]
