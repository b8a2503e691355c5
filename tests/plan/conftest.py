"""Fixtures of the tests of hubmerge.plan."""

from tests.reliability.conftest import request_hook

__all__ = ["request_hook"]
