"""Starts the command line again and again in processes of its own, without importing torch each time.

A process that has imported everything forks for each run. Run as a program: it reads one JSON object a line
({"arguments": [...], "environment": {...}, "output": FILE, "cache": FOLDER of the Hub cache}) and answers with the process id, then with the exit status
(-9 for a killed one).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType


class Forge:
    """The other end: `start` a run, `kill` it or not, `wait` for its exit status. One run at a time."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        )
        self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def start(self, *arguments: str | Path, output: Path, cache: Path, **environment: str) -> int:
        """Run `hubmerge ARGUMENTS` with stdout and stderr in a file; return the process id."""
        assert self._process.stdin is not None
        order = {"arguments": list(map(str, arguments)), "environment": environment, "output": str(output)}
        order["cache"] = str(cache)
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Return the exit status of the run, negative if a signal ended it."""
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Forge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    import matplotlib.pyplot  # noqa: F401
    import transformers
    from huggingface_hub import constants

    import hubmerge.cards
    import hubmerge.catalog
    import hubmerge.run
    import hubmerge.scoring
    from hubmerge.cli import main as hubmerge_main

    transformers.CLIPModel  # noqa: B018 - transformers imports its classes when they are asked for
    hubmerge.catalog.installed_catalog()
    print(0, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            target = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(target, 1)
            os.dup2(target, 2)
            os.environ |= order["environment"]
            constants.HF_HUB_CACHE = order["cache"]  # read from the environment long ago
            status = hubmerge_main(order["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
