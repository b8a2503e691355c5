"""The GitHub action and the workflows are valid and pass the linters, and their steps work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.automation.conftest import Sources
from tests.automation.workflows import Outcome, run_steps, scripts_of

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = "hubmerge @ git+https://example.org/hubmerge@" + 40 * "a"
INSTALLS = ("Install hubmerge", "Install what the check needs", "Install torch and the other libraries")
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: ([\w./-]+)@[0-9a-f]{40} # v[0-9.]+|uses: (\$/\S+)")


@pytest.fixture
def written(sources: Sources, hubmerge: Command) -> Callable[..., Path]:
    """Return a function that writes a workflow by `hubmerge init --github`."""

    def write(*options: str) -> Path:
        (sources.folder / ".git").mkdir(exist_ok=True)
        recipe = sources.recipe(scored=True, on_update="append")
        status, output, errors = hubmerge("init", recipe, "--github", "--force", "--requirement", REQUIREMENT, *options)
        assert status == 0, errors
        assert "next: " in output
        assert f"it installs {REQUIREMENT}" in output
        return sources.folder / ".github" / "workflows" / "hubmerge-recipe.yml"

    return write


def checked(*command: str | Path) -> str:
    if sys.version_info < (3, 11):
        pytest.skip(f"{command[0]} needs Python 3.11")
    done = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_workflows_of_this_repository_are_valid_and_clean() -> None:
    checked("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    checked("check-jsonschema", "--builtin-schema", "vendor.github-actions", ROOT / "action.yml")
    checked("zizmor", "--offline", "--quiet", *WORKFLOWS, ROOT / "action.yml")


@pytest.mark.parametrize("options", [(), ("--oidc", "--every", "0 4 * * 1")], ids=["token", "oidc"])
def test_written_workflows_are_valid_and_clean(written: Callable[..., Path], options: tuple[str, ...]) -> None:
    path = written(*options)
    checked("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)
    checked("zizmor", "--offline", "--quiet", path)
    text = path.read_text()
    assert "__" not in text
    workflow = yaml.safe_load(text)
    permissions = workflow["jobs"]["merge"]["permissions"]
    assert workflow["permissions"] == {}
    if options:
        assert permissions == {"contents": "read", "id-token": "write"}
        assert "secrets." not in text
        assert 'cron: "0 4 * * 1"' in text
    else:
        assert permissions == {"contents": "read"}
        assert "OIDC" not in text
    # YAML reads the key `on` as true.
    assert set(workflow[True]) == {"schedule", "repository_dispatch", "workflow_dispatch", "release"}


@pytest.mark.parametrize("sign", ["keyless", {"key": "/keys/key.pem"}], ids=["keyless", "key"])
def test_a_workflow_that_signs_gets_an_identity_and_the_packages(
    sources: Sources, hubmerge: Command, sign: object
) -> None:
    (sources.folder / ".git").mkdir(exist_ok=True)
    recipe = sources.recipe(publish={"repo": sources.target, "sign": sign})
    status, output, errors = hubmerge("init", recipe, "--github", "--force", "--requirement", REQUIREMENT)
    assert status == 0, errors
    assert ("let the job write the signing key to /keys/key.pem" in output) == (sign != "keyless")
    path = sources.folder / ".github" / "workflows" / "hubmerge-recipe.yml"
    checked("zizmor", "--offline", "--quiet", path)
    job = yaml.safe_load(path.read_text())["jobs"]["merge"]
    identity = {"id-token": "write"} if sign == "keyless" else {}
    assert job["permissions"] == {"contents": "read", **identity}
    named = [step["env"]["REQUIREMENT"] for step in job["steps"] if "REQUIREMENT" in step.get("env", {})]
    assert named == 2 * [REQUIREMENT.replace("hubmerge @", "hubmerge[sign] @")]
    status, _, errors = hubmerge("init", recipe, "--github", "--force", "--requirement", "./hubmerge.whl")
    assert status == 2
    assert "--requirement 'hubmerge[sign] @ git+https://HOST/OWNER/REPO@COMMIT'" in errors


def test_actions_are_pinned_and_expressions_stay_out_of_scripts() -> None:
    template = ROOT / "hubmerge" / "automation" / "workflow.yml"
    for path in (*WORKFLOWS, ROOT / "action.yml", template):
        text = path.read_text()
        assert len(PINNED.findall(text)) == text.count("uses: "), path
    for path in (ROOT / "action.yml", ROOT / ".github" / "workflows" / "merge.yml", template):
        scripts = scripts_of(path)
        assert list(scripts) == [
            *INSTALLS[:2],
            "Check for changes",
            INSTALLS[2],
            "Merge, score, publish",
            "Measure the cache",
        ]
        assert not [script for script in scripts.values() if "${{" in script]
        assert scripts == scripts_of(ROOT / "action.yml"), "the three do the same"


def test_every_trigger_of_this_repository_calls_the_reusable_workflow() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "auto-merge.yml").read_text())
    assert set(workflow[True]) == {"schedule", "repository_dispatch", "workflow_dispatch", "release"}
    (job,) = workflow["jobs"].values()
    called = yaml.safe_load((ROOT / job["uses"].removeprefix("$/")).read_text())
    inputs = called[True]["workflow_call"]["inputs"]
    assert set(job["with"]) <= set(inputs)
    assert inputs["requirement"]["required"] is True
    assert inputs["torch-backend"]["default"] == "cpu"
    assert set(job["secrets"]) == set(called[True]["workflow_call"]["secrets"])
    for entry in job["strategy"]["matrix"]["include"]:
        recipe = yaml.safe_load((ROOT / entry["recipe"]).read_text())
        assert recipe["publish"]["repo"] == entry["target"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment after the install step of the action: this repository's package with its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    pip = {"PIP_TARGET": str(folder), "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    path = f"{BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", scripts_of(ROOT / "action.yml")["Install hubmerge"]],
        env={**os.environ, **pip, "PATH": path, "REQUIREMENT": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "hubmerge" / "automation" / "workflow.yml").is_file()
    return {**os.environ, "PATH": f"{folder / 'bin'}:{path}", "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def without_install(path: Path, folder: Path) -> Path:
    """Write the workflow without the scripts that install packages."""
    document = yaml.safe_load(path.read_text())
    for steps in [document["runs"]["steps"]] if "runs" in document else [document["jobs"]["merge"]["steps"]]:
        steps[:] = [step for step in steps if step.get("name") not in INSTALLS]
    shorter = folder / "shorter.yml"
    shorter.write_text(yaml.safe_dump(document))
    return shorter


@pytest.mark.parametrize("jobs", [("written",), pytest.param(("written", "action"), marks=pytest.mark.slow)], ids=len)
def test_a_new_commit_adds_a_step(
    written: Callable[..., Path], sources: Sources, installed: dict[str, str], tmp_path: Path, jobs: tuple[str, ...]
) -> None:
    recipe = "recipe.yaml"
    called = {"inputs.recipe": recipe, "env.RECIPE": recipe, "inputs.token": os.environ["HF_TOKEN"]}
    called |= {"inputs.endpoint": os.environ["HF_ENDPOINT"], "secrets.HF_TOKEN": os.environ["HF_TOKEN"]}
    files = {
        "written": written(),
        "action": ROOT / "action.yml",
        "reusable": ROOT / ".github" / "workflows" / "merge.yml",
    }
    environment = {**installed, "HF_TOKEN": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert environment["HF_ENDPOINT"] == called["inputs.endpoint"]

    def job(which: str) -> Outcome:
        path = without_install(files[which], tmp_path)
        return run_steps(path, tmp_path / f"job-{len(outcomes)}", called, environment, sources.folder)

    outcomes: list[Outcome] = []
    name = sources.name("first")
    for tower, which in enumerate(jobs):
        sources.push("first", tower)
        outcomes.append(job(which))
        assert outcomes[-1].outputs == {"moved": "true", "small": "true"}, outcomes[-1].log
        assert outcomes[-1].ran == ["Check for changes", "Merge, score, publish", "Measure the cache"]
        assert "## 1 new step" in outcomes[-1].summary
        assert "| step | first | average |" in outcomes[-1].summary
        assert os.environ["HF_TOKEN"] not in outcomes[-1].log + outcomes[-1].summary
    titles = [f"step-01: merge {name}", f"step-02: merge {name}-2"][: len(jobs)]
    assert sources.titles() == titles[::-1]
    assert sources.tags() == [f"step-0{n}" for n in range(1, len(jobs) + 1)]
    quiet = job("reusable")
    assert quiet.outputs == {"moved": "false"}, quiet.log
    assert quiet.ran == ["Check for changes"]
    assert sources.titles() == titles[::-1]
    from huggingface_hub import ModelCard

    assert f"step-0{len(jobs)}" in ModelCard.load(sources.target).content


def test_a_job_fails_if_the_hub_refuses_the_token(
    written: Callable[..., Path], sources: Sources, installed: dict[str, str], tmp_path: Path
) -> None:
    path = without_install(written(), tmp_path)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_steps(path, tmp_path / "job", {"secrets.HF_TOKEN": "hf_wrongwrongwrong"}, installed, sources.folder)
    assert failed.value.returncode == 3
    assert "hf_wrong" not in failed.value.output


def test_init_refuses_recipes_that_cannot_run_on_github(sources: Sources, hubmerge: Command) -> None:
    recipe = sources.recipe()
    status, _, errors = hubmerge("init", recipe, "--github")
    github = ("--github", "--requirement", REQUIREMENT)
    assert status == 2
    assert "a folder of this machine" in errors
    assert "--requirement" in errors
    status, _, errors = hubmerge("init", recipe, *github)
    assert status == 5
    assert "not in a git repository" in errors
    (sources.folder / ".git").mkdir()
    assert hubmerge("init", recipe, *github)[0] == 0
    status, _, errors = hubmerge("init", recipe, *github, "--oidc")
    assert status == 2
    assert "--force" in errors
    status, _, errors = hubmerge("init", recipe, *github, "--force", "--every", "0 0 * * *\n- x")
    assert status == 2
    assert "not a schedule" in errors
    status, _, errors = hubmerge("init", sources.recipe(publish=None), *github)
    assert status == 2
    assert "publish" in errors
