"""Surroundings in which lm-evaluation-harness runs: quiet, in one process, with templates that cannot run code.

Each function returns a context; what it changes is restored at its end.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.external_metrics import ALLOWED_VARIABLE
from hubmerge.support.damage import LOGGER

HARNESS_LOGGER = "lm_eval"


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class _WithoutThread(io.TextIOBase):
    """Standard output without what the thread prints that made it; progress bars are drawn by another thread."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding)


def _without_bar(construct: Callable[..., None]) -> Callable[..., None]:
    def construct_disabled(bar: Any, *arguments: Any, **options: Any) -> None:
        construct(bar, *arguments, **{**options, "disable": True})

    return construct_disabled


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep messages, warnings and progress bars of the harness from the terminal, unless debug messages are shown."""
    if LOGGER.isEnabledFor(logging.DEBUG):
        yield
        return
    tqdm: Any = importlib.import_module("tqdm").tqdm
    loggers = [logging.getLogger(name) for name in (HARNESS_LOGGER, "transformers", "datasets", "evaluate", "absl")]
    levels = [one.level for one in loggers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(_WithoutThread(sys.stdout)))
        stack.enter_context(replaced(tqdm, "__init__", _without_bar(tqdm.__init__)))
        try:
            for one in loggers:
                one.setLevel(logging.CRITICAL)
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """Let the harness estimate standard errors in this process."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


@contextlib.contextmanager
def sandboxed() -> Iterator[None]:
    """Render the templates of tasks in Jinja's sandbox: a recipe may be somebody else's."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    utils: Any = importlib.import_module("lm_eval.utils")
    own = ImmutableSandboxedEnvironment(undefined=utils.env.undefined, keep_trailing_newline=True)
    own.filters.update(utils.env.filters)
    with replaced(utils, "env", own):
        yield


@contextlib.contextmanager
def without_hub_metrics() -> Iterator[None]:
    """Let tasks load no metric of the Hub, which is code of no pinned commit, unless the environment allows it."""
    library: Any = importlib.import_module("evaluate")
    load = library.load

    def load_allowed(name: str, *arguments: Any, **options: Any) -> Any:
        allowed = {one.strip() for one in os.environ.get(ALLOWED_VARIABLE, "").split(",")}
        if name not in allowed:
            raise EvaluationError(
                f"the metric {name!r} of the Hub is code of no pinned commit",
                hint=f"read the code first; to allow it, run `export {ALLOWED_VARIABLE}={name}`",
            )
        return load(name, *arguments, **options)

    with replaced(library, "load", load_allowed):
        yield


class _Datasets:
    """The datasets library, with another function for loading."""

    def __init__(self, library: Any, load: Callable[..., Any]) -> None:
        self._library, self.load_dataset = library, load

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


@contextlib.contextmanager
def reading_with(load: Callable[..., Any]) -> Iterator[None]:
    """Let tasks read their data with a function in place of `datasets.load_dataset`."""
    module: Any = importlib.import_module("lm_eval.api.task")
    with replaced(module, "datasets", _Datasets(module.datasets, load)):
        yield


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the random numbers of Python, numpy and torch."""
    import numpy as np
    import torch

    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)
