"""The public names of `import hubmerge`: complete, sorted, typed, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hubmerge

ROOT = Path(__file__).resolve().parents[2]
HEAVY = "{'torch', 'transformers', 'datasets', 'huggingface_hub', 'numpy'}"

SCRIPT = """
import torch
import hubmerge

loaded: hubmerge.LoadedRecipe = hubmerge.load("recipe.yaml")
checked: hubmerge.CheckedRecipe = hubmerge.check({"merge_method": "opcm"})
plan: hubmerge.Plan = hubmerge.plan(loaded, progress=None)
names: list[str] = [step.name for step in plan.steps]
run: hubmerge.StepRun = hubmerge.run(loaded, out="merged", progress="auto")
for step in run:
    report: hubmerge.StepReport = step
finished: hubmerge.RunReport = run.finish()
part: hubmerge.LoadedRecipe = hubmerge.load_part("recipe.yaml", "2/8")
combined: hubmerge.CombinedStream = hubmerge.combine(["me/animals", "you/plants"], into="us/living")
folder = hubmerge.merge("base", ["a", "b"], method="task_arithmetic", parameters={"scaling": 0.3}, out="merged")
folder.exists()
verdict: hubmerge.Verdict = hubmerge.verify("me/merged@step-03", quick=True)
findings: tuple[hubmerge.Finding, ...] = verdict.differences + verdict.unknown
tensors: dict[str, torch.Tensor] = hubmerge.merge_state_dicts({}, [{}], method="opcm")
commit: str = hubmerge.rollback("me/merged", 3)
changes: hubmerge.Changes = hubmerge.outdated("recipe.yaml")
first: hubmerge.Change = changes[0]
lock: hubmerge.WrittenLock = hubmerge.lock("recipe.yaml", update=True)
lock.path.exists()
hubmerge.watch("recipe.yaml", every=600.0, listen=("127.0.0.1", 0), progress=hubmerge.SilentProgress())
hubmerge.init_github("recipe.yaml", oidc=True).exists()
job: hubmerge.PlannedJob = hubmerge.plan_hub_job("recipe.yaml", schedule=None)
created: hubmerge.CreatedJob = hubmerge.deploy_hub_job(job)
study: hubmerge.StudyResult = hubmerge.study("study.yaml")
methods: tuple[hubmerge.MethodInfo, ...] = hubmerge.methods()
schema: dict[str, object] = hubmerge.schema()
hubmerge.serve_hub(port=8080)
hubmerge.demo()
try:
    hubmerge.check("recipe.yaml")
except hubmerge.HubmergeError as error:
    hint: str | None = error.hint
"""


MYPY = """
[mypy]
strict = true
follow_imports = silent
ignore_missing_imports = true
"""
SKIPPED = """
[mypy-torch.*,transformers.*,huggingface_hub.*,rich.*,numpy.*,pydantic.*,typer.*,click.*]
follow_imports = skip
"""


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)


def test_all_is_sorted_and_complete() -> None:
    assert hubmerge.__all__ == sorted(hubmerge.__all__)
    assert set(hubmerge.__all__) == {"__version__", *hubmerge._MODULE_OF}
    for name in hubmerge.__all__:
        assert getattr(hubmerge, name) is not None
    assert set(hubmerge.__all__) <= set(dir(hubmerge))


def test_every_public_function_and_class_has_a_docstring() -> None:
    for name in hubmerge.__all__:
        assert name == "__version__" or getattr(hubmerge, name).__doc__, name


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mergee'"):
        _ = getattr(hubmerge, "mergee")  # noqa: B009 - mypy would refuse the attribute


def test_a_public_function_keeps_its_name_when_the_package_of_that_name_is_imported() -> None:
    from hubmerge.plan.text import plan_text
    from hubmerge.run.run import Run

    assert Run.__module__ == "hubmerge.run.run"
    assert plan_text.__module__ == "hubmerge.plan.text"
    assert hubmerge.plan.__module__ == "hubmerge.api.planning"
    assert hubmerge.run.__module__ == "hubmerge.api.merging"


def test_import_hubmerge_needs_no_heavy_import(tmp_path: Path) -> None:
    code = (
        f"import sys, hubmerge, hubmerge.api\nheavy = ({HEAVY} | {{'pydantic', 'rich', 'yaml'}}) & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_check_needs_no_torch(tmp_path: Path) -> None:
    code = (
        f"import sys, hubmerge\nprint(hubmerge.check({str(ROOT / 'recipes' / 'quickstart.yaml')!r}))\n"
        f"heavy = ({HEAVY} - {{'numpy'}}) & set(sys.modules)\nsys.exit(f'imported {{heavy}}' if heavy else 0)"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "OK: opcm, 8 checkpoints\n"


@pytest.mark.parametrize("skipped", [SKIPPED, pytest.param("", marks=pytest.mark.slow)], ids=["own", "all"])
def test_a_script_of_a_user_passes_mypy_strict(tmp_path: Path, skipped: str) -> None:
    """The types of other packages take most of the time."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(MYPY + skipped, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
