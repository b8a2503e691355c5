"""Imports at first use: methods are known without torch and numpy; functions load their module at the first call."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hubmerge.support.lazy import functions_at_first_call


def test_methods_are_imported_without_torch_and_numpy() -> None:
    code = (
        "import sys; from hubmerge.methods import METHODS\n"
        "assert METHODS[0].Parameters().model_dump()\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "from hubmerge.support.lazy import torch\n"
        "import torch as real\n"
        "assert torch.float64 is real.float64\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with two functions that is not loaded yet."""
    (tmp_path / "solver_of_tests.py").write_text("def solve(a, b=0):\n    return a + b\n\nLIMIT = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "solver_of_tests", raising=False)
    return "solver_of_tests"


def test_a_function_loads_its_module_at_the_first_call(library: str) -> None:
    with functions_at_first_call(library, "solve"):
        solve = import_module(library).solve
        inspect.getmodule(solve)  # asks all modules for their files
    assert library not in sys.modules
    assert solve(2, b=3) == 5
    assert sys.modules[library].__file__


def test_another_name_loads_the_module_at_once(library: str) -> None:
    with functions_at_first_call(library, "solve"):
        assert import_module(library).LIMIT == 7
        assert sys.modules[library].__file__
    assert library in sys.modules


def test_a_loaded_module_is_left_as_it_is(library: str) -> None:
    module = import_module(library)
    with functions_at_first_call(library, "solve"):
        assert import_module(library) is module
    assert sys.modules.pop(library) is module
