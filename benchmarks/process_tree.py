"""Memory and disk traffic of a process and its descendants, from /proc.

Memory is the largest sum of `RssAnon` and `RssShmem` over the tree, looked up every 20 ms: what the processes hold
themselves. Pages of mapped files are left out, the weights that one program maps as well as the libraries that all
programs map: the system can drop them at any time. Traffic is what storage delivered and took for the processes,
without what the page cache answered.
"""

from __future__ import annotations

import threading
from pathlib import Path

PERIOD = 0.02
OWN_MEMORY = ("RssAnon:", "RssShmem:")


class TreeMemory(threading.Thread):
    """Watch of the memory of a process tree; `peak` is the largest sum in bytes so far."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        """Look up the memory until `stop` is called."""
        while not self._ended.wait(PERIOD):
            self.peak = max(self.peak, sum(own_memory(pid) for pid in tree(self._pid)))

    def stop(self) -> int:
        """End the watch and return the peak."""
        self._ended.set()
        self.join()
        return self.peak


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found, place = [pid], 0
    while place < len(found):
        for task in Path(f"/proc/{found[place]}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
        place += 1
    return found


def own_memory(pid: int) -> int:
    """Return the resident bytes of a process without pages of files; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(OWN_MEMORY))


def traffic(pid: int) -> tuple[int, int]:
    """Return the bytes that a process, and those that it waited for, had read from storage and written to it."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    values = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return values["read_bytes"], values["write_bytes"]
