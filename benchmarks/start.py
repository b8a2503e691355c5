"""CPU time of starting the command line and of importing the package, in seconds.

    python benchmarks/start.py

Each line is the smallest of several runs, user and system time of the process together.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

RUNS = 5
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.yaml"
COMMANDS = {
    "python": ["-c", "pass"],
    "import hubmerge": ["-c", "import hubmerge"],
    "hubmerge --version": ["-m", "hubmerge", "--version"],
    "hubmerge --help": ["-m", "hubmerge", "--help"],
    "hubmerge check": ["-m", "hubmerge", "check", str(RECIPE)],
}


def cpu_seconds(arguments: list[str]) -> float:
    """Return the CPU time of a Python process, which must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure every command and print one line for each."""
    for name, arguments in COMMANDS.items():
        print(f"{name:<20} {min(cpu_seconds(arguments) for _ in range(RUNS)):.2f} s")


if __name__ == "__main__":
    main()
