"""Parsing of command lines without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from typer.core import TyperCommand

from hubmerge.cli.main import call


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments and options of a command line, by name.

    Raises:
        TyperException: the words are not a command.
    """
    parsed: dict[str, Any] = {}

    def invoke(_: TyperCommand, context: Any) -> int:
        parsed.update(context.params)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TyperCommand, "invoke", invoke)
        assert call(words) == 0
    return parsed
