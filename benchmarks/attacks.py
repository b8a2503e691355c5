"""Attacks on a merge and on the embedded Hub, repeated by their tests and counted by kind.

    python benchmarks/attacks.py            # run the tests of every kind, about ten minutes on two cores
    python benchmarks/attacks.py --junit results.xml     # count the results of `pytest --junitxml results.xml`

Prints the table of docs/reliability.md. The kinds are in benchmarks/attacks.yaml.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).resolve().parent.parent
HEADER = ("kind", "tried", "version 0.1.0", "now", "cases held")


def kinds() -> list[dict[str, Any]]:
    """Return the kinds of attack."""
    content: list[dict[str, Any]] = yaml.safe_load((ROOT / "benchmarks" / "attacks.yaml").read_text(encoding="utf-8"))
    return content


def run_tests(targets: Iterable[str], report: Path) -> None:
    """Run the tests of all kinds, and write their results."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", f"--junitxml={report}"]
    subprocess.run([*command, *dict.fromkeys(targets)], cwd=ROOT, check=False)


def read_results(report: Path) -> dict[str, bool]:
    """Return for every case of a test, as `file::name::number`, whether it passed; skipped ones are left out."""
    results = {}
    for number, case in enumerate(ElementTree.parse(report).iter("testcase")):  # noqa: S314 - written by pytest
        if case.find("skipped") is None:
            module, name = str(case.get("classname")).replace(".", "/"), str(case.get("name")).partition("[")[0]
            results[f"{module}.py::{name}::{number}"] = case.find("failure") is None and case.find("error") is None
    return results


def counted(targets: Iterable[str], results: Mapping[str, bool]) -> str:
    """Return how many of the tests of a kind passed."""
    own = {key: passed for key, passed in results.items() if any(key.startswith(f"{one}::") for one in targets)}
    return f"{sum(own.values())} of {len(own)}"


def rows() -> list[tuple[str, ...]]:
    """Return the columns of the table that do not depend on results."""
    return [(kind["kind"], kind["tried"], kind["found"], kind["now"]) for kind in kinds()]


def table(results: Mapping[str, bool]) -> str:
    """Return the table, in Markdown."""
    lines = [HEADER, (":---", ":---", ":---", ":---", "---:")]
    lines += [(*row, counted(kind["tests"], results)) for row, kind in zip(rows(), kinds(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Print the table; the exit status is 1 if an attack succeeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--junit", type=Path, help="results of pytest, in place of a run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = arguments.junit or Path(folder) / "results.xml"
        if arguments.junit is None:
            run_tests((test for kind in kinds() for test in kind["tests"]), report)
        results = read_results(report)
    print(table(results))
    return 0 if results and all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
