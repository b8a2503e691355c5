"""Runner of the `run:` steps of a workflow or an action in a shell, as on GitHub."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{ *(.+?) *\}\}")


@dataclass
class Outcome:
    """Results of the steps of a job."""

    ran: list[str] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""


def steps_of(path: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the steps of the only job, or of the action, and the environment of the job."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "runs" in document:
        return document["runs"]["steps"], {}
    (job,) = document["jobs"].values()
    return job["steps"], job.get("env", {})


def scripts_of(path: Path) -> dict[str, str]:
    """Return the shell scripts of a workflow or an action, by step name."""
    return {step["name"]: step["run"] for step in steps_of(path)[0] if "run" in step}


def run_steps(
    path: Path, folder: Path, context: Mapping[str, str], environment: Mapping[str, str], workspace: Path
) -> Outcome:
    """Run the shell steps one after another. `context` answers expressions such as `inputs.recipe`.

    Raises:
        CalledProcessError: a step failed, as its job would.
    """
    steps, job = steps_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    done = Outcome()
    known = dict(context)
    for step in steps:
        if "run" not in step or not _holds(step.get("if"), known):
            continue
        for file in files.values():
            file.touch()
        files["GITHUB_OUTPUT"].write_text("")
        own = {name: _value(text, known) for name, text in {**job, **step.get("env", {})}.items()}
        script = folder / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        flags = ["--noprofile", "--norc", "-eo", "pipefail"] if step.get("shell") == "bash" else ["-e"]
        finished = subprocess.run(
            ["bash", *flags, script],
            cwd=workspace,
            env={**environment, **own, **_paths(files)},
            capture_output=True,
            text=True,
        )
        done.log += finished.stdout + finished.stderr
        if finished.returncode != 0:
            raise subprocess.CalledProcessError(finished.returncode, step["name"], done.log)
        done.ran.append(step["name"])
        for line in files["GITHUB_OUTPUT"].read_text().splitlines():
            name, _, value = line.partition("=")
            known[f"steps.{step['id']}.outputs.{name}"] = done.outputs[name] = value
    done.summary = files["GITHUB_STEP_SUMMARY"].read_text()
    return done


def _paths(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in files.items()}


def _value(text: str, known: Mapping[str, str]) -> str:
    return _EXPRESSION.sub(lambda found: known.get(found[1], ""), text)


def _holds(condition: str | None, known: Mapping[str, str]) -> bool:
    """Return the value of comparisons joined by `&&`."""
    for comparison in condition.split(" && ") if condition else ():
        name, operator, value = comparison.split(" ")
        if (known.get(name, "") == value.strip("'")) != (operator == "=="):
            return False
    return True
