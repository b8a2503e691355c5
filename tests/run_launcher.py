"""Launcher of the command line in separate processes, without an import of torch in each.

A process that has imported everything forks for each run. As a program, it reads one order per line as JSON, and prints
the process id, then the exit status (-9 if the run was killed).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

ROOT = Path(__file__).parents[1]


class Places(TypedDict, total=False):
    """Files, folders and environment of a run."""

    output: Path
    cache: Path
    TMPDIR: str
    HF_DEBUG: str
    HF_HUB_VERBOSITY: str
    HF_DATASETS_CACHE: str


class RunLauncher:
    """Client of the launcher process, for one run at a time: `start`, then `wait`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.run_launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        )
        self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def start(
        self,
        *arguments: str | Path,
        output: Path,
        cache: Path,
        largest_file: int | None = None,
        small_disk: Path | None = None,
        powerless: bool = False,
        **environment: str,
    ) -> int:
        """Start `hubmerge ARGUMENTS` and return its process id.

        Args:
            arguments: Arguments of the command line.
            output: File for stdout and stderr.
            cache: Folder of the Hub cache.
            largest_file: Limit on the size of files in bytes, None for no limit.
            small_disk: Folder on which a small disk is mounted for this run only, None for none.
            powerless: True to respect file permissions even as root.
            environment: Further environment variables.
        """
        assert self._process.stdin is not None
        order = {
            "arguments": list(map(str, arguments)),
            "environment": environment,
            "output": str(output),
            "cache": str(cache),
            "largest_file": largest_file,
            "small_disk": small_disk and str(small_disk),
            "powerless": powerless,
        }
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

    def __enter__(self) -> RunLauncher:
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
    import hubmerge.run.run
    import hubmerge.run.scoreboard
    import hubmerge.stream.catalog
    from hubmerge.cli.main import main as hubmerge_main

    transformers.CLIPModel  # noqa: B018 - transformers imports its classes when they are asked for
    hubmerge.stream.catalog.installed_catalog()
    print(0, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        inlet, outlet = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(outlet, 1)
            os.dup2(outlet, 2)
            os.close(inlet)
            os.close(outlet)
            os.environ |= order["environment"]
            constants.HF_HUB_CACHE = order["cache"]  # was read from the environment at import
            restrict(order)
            status = hubmerge_main(order["arguments"])
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        os.close(outlet)
        print(child, flush=True)
        with Path(order["output"]).open("ab") as output:
            while piece := os.read(inlet, 1 << 16):
                output.write(piece)
                output.flush()
        os.close(inlet)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


SMALL_DISK_BYTES = 64 << 20
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
CAPABILITY_VERSION = 0x20080522


def restrict(order: dict[str, Any]) -> None:
    """Restrict the file size, disk or permissions of this process."""
    system = ctypes.CDLL(None, use_errno=True)
    if order["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"],) * 2)
    if order["small_disk"]:
        private_disk(system, order["small_disk"])
    if order["powerless"]:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
        nothing = (ctypes.c_uint32 * 6)()
        if system.capset(header, nothing) != 0:
            raise OSError(ctypes.get_errno(), "capset")


def private_disk(system: ctypes.CDLL, folder: str) -> None:
    """Mount a small disk on a folder, visible to this process only.

    Raises:
        OSError: The system does not allow it.
    """
    user, group = os.getuid(), os.getgid()
    if system.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    options = f"size={SMALL_DISK_BYTES}".encode()
    if system.mount(b"none", folder.encode(), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def can_have_a_private_disk() -> bool:
    """Return True if the system allows `private_disk`."""
    command = "import ctypes, sys; from tests.run_launcher import private_disk as disk; "
    command += "disk(ctypes.CDLL(None, use_errno=True), sys.argv[1])"
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([sys.executable, "-c", command, folder], cwd=ROOT, capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
