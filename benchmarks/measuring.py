"""Cost of a whole process: CPU seconds of user and system, wall seconds, highest memory, traffic with the disk.

Nothing heavy is imported here: on Linux a child's highest memory begins with what its parent had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from process_tree import TreeMemory, traffic

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cost:
    """Of one process and those it waited for.

    Attributes:
        cpu_seconds: user and system time.
        wall_seconds: time from start to end.
        peak_megabytes: highest resident memory of the largest process, with pages of mapped files.
        own_megabytes: highest memory of all processes together, without pages of mapped files.
        read_gigabytes: what came from storage.
        written_gigabytes: what went to storage.
    """

    cpu_seconds: float
    wall_seconds: float
    peak_megabytes: float
    own_megabytes: float = 0.0
    read_gigabytes: float = 0.0
    written_gigabytes: float = 0.0

    @classmethod
    def least(cls, costs: Sequence[Cost]) -> Cost:
        """Return the smallest value of each: other work on the machine can only add to it."""
        return cls(**{field.name: min(getattr(cost, field.name) for cost in costs) for field in fields(cls)})


def measure(
    command: Sequence[str | Path],
    *,
    cpus: int = 1,
    environment: Mapping[str, str] | None = None,
    log: Path,
    skip: int = 0,
) -> Cost:
    """Run a command on that many CPUs, its output in `log`. Raises RuntimeError with the end of it if it fails.

    Commands that run at the same time give the CPUs of the others in `skip`.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if cpus + skip > len(allowed):
        raise RuntimeError(f"{cpus + skip} CPUs are wanted, this process may use {len(allowed)}")
    log.parent.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, "TOKENIZERS_PARALLELISM": "false", **(environment or {})}
    chosen = ",".join(map(str, allowed[len(allowed) - cpus - skip : len(allowed) - skip]))
    with log.open("w") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "--cpu-list", chosen, *map(str, command)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=settings,
        )
        memory = TreeMemory(process.pid)
        memory.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read, written = traffic(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    own = memory.stop() / 1e6
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6
    return Cost(cpu, wall, peak, own, read / 1e9, written / 1e9)


def hubmerge(recipe: Path, work: Path, *, every_step: bool = False) -> list[str | Path]:
    """Return the command line of this checkout in the environment that runs the benchmark."""
    wanted: list[str | Path] = ["--out", work / "steps", "--every-step"] if every_step else []
    return [sys.executable, "-m", "hubmerge", "run", recipe, "--work-dir", work, "--quiet", *wanted]


def hubmerge_environment(cache: Path) -> dict[str, str]:
    """Environment variables for it: this checkout's code, no network, and what it remembers in a folder of ours."""
    return {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(cache)}


def met_before(folder: Path, base: str, stream: Sequence[str]) -> dict[str, str]:
    """Return the environment of a user who has merged these checkpoints before, made by merging their mean."""
    environment = hubmerge_environment(folder / "cache")
    work = Path(tempfile.mkdtemp(prefix="before-", dir=folder))
    try:
        models = [{"model": str(model), "name": Path(model).name} for model in stream]
        recipe = work / "recipe.yaml"
        written = {"merge_method": "weight_average", "base_model": str(base), "models": models}
        recipe.write_text(json.dumps(written), encoding="utf-8")
        measure(hubmerge(recipe, work / "runs"), environment=environment, log=folder / "logs" / "before.txt")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return environment


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Return the processor and how busy it is, for the caption of a table."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown processor",
    )
    return f"{model}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f} at the end"
