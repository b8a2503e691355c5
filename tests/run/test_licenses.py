"""Licenses of the inputs: read, shown, carried into the merged model, and refused where they do not go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
Variant = Callable[..., str]

TINY: dict[str, Any] = {"license": "other", "license_name": "tiny-license", "license_link": "LICENSE"}


@pytest.fixture(scope="module")
def variant(stage: Stage) -> Variant:
    """Publish a model of the stage under another license: `variant("shapes", license="mit")`, `None` for no card."""
    from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

    made: dict[str, str] = {}

    def make(name: str, files: dict[str, str] | None = None, **metadata: Any) -> str:
        key = json.dumps([name, files, metadata])
        if key not in made:
            api, repo = HfApi(), f"local/licensed-{name}-{len(made)}"
            folder = Path(snapshot_download(stage.base if name == "base" else stage.towers[name]))
            texts = {"README.md": f"---\n{yaml.safe_dump(metadata)}---\n# Card\n", **(files or {})}
            weights = [path for path in folder.iterdir() if path.name != "README.md"]
            api.create_repo(repo)
            operations = [CommitOperationAdd(path.name, path) for path in weights]
            operations += [CommitOperationAdd(path, text.encode()) for path, text in texts.items() if text]
            api.create_commit(repo, operations, commit_message="Add files")
            made[key] = repo
        return made[key]

    return make


def written(folder: Path, base: str, models: dict[str, str], **publish: Any) -> Path:
    recipe: dict[str, Any] = {
        "merge_method": "opcm",
        "base_model": base,
        "models": [{"model": model, "name": name} for name, model in models.items()],
    }
    if publish:
        recipe["publish"] = publish
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def metadata(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def published(repo: str, name: str) -> str:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo, name)).read_text(encoding="utf-8")


CONFLICTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "non-commercial with permissive": ({"license": "apache-2.0"}, {"license": "cc-by-nc-4.0"}),
    "strong copyleft with permissive": ({"license": "mit"}, {"license": "gpl-3.0"}),
    "weak copyleft with permissive": ({"license": "mit"}, {"license": "mpl-2.0"}),
    "two copyleft licenses": ({"license": "gpl-2.0"}, {"license": "gpl-3.0"}),
    "own terms with permissive": ({"license": "llama3"}, {"license": "mit"}),
    "other with permissive": (TINY, {"license": "mit"}),
    "two other licenses": (TINY, {**TINY, "license_name": "large-license"}),
    "one of several": ({"license": ["mit", "apache-2.0"]}, {"license": ["mit", "cc-by-nc-4.0"]}),
    "no derivatives alone": ({"license": "cc-by-nd-4.0"}, {"license": "cc-by-nd-4.0"}),
    "other without a name": ({"license": "other"}, {"license": "other"}),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_licenses_that_do_not_go_together_are_refused_before_the_merge(
    variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names, name: str
) -> None:
    from huggingface_hub import HfApi

    first, second = CONFLICTS[name]
    base, shapes, repo = variant("base", **first), variant("shapes", **second), repo_name("target")
    recipe = written(tmp_path, base, {"shapes": shapes}, repo=repo)
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, recipe)
        assert status == 2, errors
        assert f"{recipe}:" in errors
        assert base in errors
        assert shapes in errors
        assert f"publish: {{repo: {repo}, license: " in errors
    assert not HfApi().repo_exists(repo)
    assert hubmerge("plan", written(tmp_path, base, {"shapes": shapes}, repo=repo, license="cc-by-nc-4.0"))[0] == 0


def test_every_conflict_is_listed_at_once(
    variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    models = {
        "shapes": variant("shapes", license="cc-by-nc-4.0"),
        "dots": variant("dots", license="gpl-3.0"),
        "clocks": variant("clocks", license="cc-by-nd-4.0"),
    }
    recipe = written(tmp_path, variant("base", license="apache-2.0"), models, repo=repo_name("target"))
    status, _, errors = hubmerge("plan", recipe)
    assert status == 2
    assert (
        f"does not allow changed versions, and a merged model is one: cc-by-nd-4.0 (no derivatives): {models['clocks']}"
        in errors
    )
    assert f"cc-by-nc-4.0 (non-commercial): {models['shapes']}; gpl-3.0 (strong copyleft): {models['dots']}" in errors


GOING_TOGETHER: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "permissive": ({"license": "mit"}, {"license": "apache-2.0"}, {"license": "mit"}),
    "permissive lists": ({"license": ["mit", "apache-2.0"]}, {"license": "isc"}, {"license": ["mit", "apache-2.0"]}),
    "one non-commercial license": (
        {"license": "cc-by-nc-4.0"},
        {"license": "cc-by-nc-4.0"},
        {"license": "cc-by-nc-4.0"},
    ),
    "one other license": (TINY, TINY, TINY),
    "an unknown license": ({"license": "gpl-3.0"}, {}, {"license": "gpl-3.0"}),
    "nothing known": ({}, {}, {}),
    "no license of the Hub": ({"license": "mit"}, {"thumbnail": "x"}, {"license": "mit"}),
}


@pytest.mark.parametrize("name", GOING_TOGETHER)
def test_the_license_of_the_base_model_is_carried_into_the_card(
    variant: Variant, hubmerge: Command, tmp_path: Path, name: str
) -> None:
    first, second, expected = GOING_TOGETHER[name]
    base = variant("base", {"LICENSE": "The license\n"}, **first)
    recipe = written(tmp_path, base, {"shapes": variant("shapes", **second)})
    status, _, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    found = metadata((tmp_path / "out" / "README.md").read_text())
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected
    assert (tmp_path / "out" / "LICENSE").read_text() == "The license\n"
    assert (tmp_path / "out" / "NOTICE").is_file() == (first != second)


def test_a_published_license_with_its_notices_verifies(
    variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    base = variant("base", {"LICENSE": "Tiny terms\n", "NOTICE": "Notice of the base\n"}, **TINY)
    models = {
        "shapes": variant("shapes", {"NOTICE.txt": "Notice of shapes\n"}, license="cc-by-nc-4.0"),
        "dots": variant("dots", {"README.md": ""}),
    }
    stated = {"license": "cc-by-nc-4.0", "license_link": "https://example.org/license"}
    status, output, errors = hubmerge("run", written(tmp_path, base, models, repo=repo, **stated))
    assert status == 0, errors
    assert f"cc-by-nc-4.0 (non-commercial): {models['shapes']}; other (tiny-license) (own terms): {base}" in output
    assert "the recipe states cc-by-nc-4.0" in output
    assert f"license unknown: {models['dots']}" in output
    card = published(repo, "README.md")
    assert {key: value for key, value in metadata(card).items() if key.startswith("license")} == stated
    assert "| other (tiny-license) | own terms | base model |" in card
    assert "| unknown | unknown | dots |" in card
    notice = published(repo, "NOTICE")
    assert f"base model: {base} at " in notice
    assert ": other (tiny-license), LICENSE; see LICENSE, NOTICE there\n" in notice
    for text in ("Its license: cc-by-nc-4.0.", "Notice of the base", "Notice of shapes"):
        assert text in notice
    status, output, _ = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, output
    assert "its licenses are those in the cards of 3 inputs" in output


def test_a_license_that_was_changed_on_the_way_is_found(
    variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    """A report whose licenses are not those in the cards does not verify, whatever its digests say."""
    import dataclasses

    from huggingface_hub import HfApi

    from hubmerge.report.report import License, RunReport

    repo, base, shapes = repo_name("target"), variant("base", license="mit"), variant("shapes", license="mit")
    assert hubmerge("run", written(tmp_path, base, {"shapes": shapes}, repo=repo))[0] == 0
    report = RunReport.from_json(published(repo, "hubmerge.json"))
    assert report.steps[0].licenses == (License(("mit",)),)
    forged = report.with_step(dataclasses.replace(report.steps[0], licenses=(License(("isc",)),)))
    content = dataclasses.replace(forged, all_files=report.all_files).to_json().encode()
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=content)
    status, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert status == 6
    assert f"differs  report: its license of {shapes} is isc, but the card there states mit" in output


def test_the_plan_shows_every_license(variant: Variant, hubmerge: Command, tmp_path: Path) -> None:
    base, shapes = variant("base", license="mit"), variant("shapes", license="cc-by-nc-4.0")
    recipe = written(tmp_path, base, {"shapes": shapes, "dots": variant("dots", {"README.md": ""})})
    status, output, _ = hubmerge("plan", recipe, "--verbose")
    assert status == 0
    for line in (
        "license  mit for the merged model",
        "         cc-by-nc-4.0 (non-commercial): shapes",
        "         mit (permissive): base model",
        "         unknown (unknown): dots",
        f"warning  the licenses do not go together: cc-by-nc-4.0 (non-commercial): {shapes}; mit (permissive): {base}",
    ):
        assert line in output
    _, output, _ = hubmerge("plan", recipe, "--json")
    plan = next(json.loads(line) for line in output.splitlines() if '"event": "plan"' in line)["licenses"]
    assert [(one["name"], one.get("license"), one["kind"]) for one in plan["inputs"]] == [
        ("base model", "mit", "permissive"),
        ("shapes", "cc-by-nc-4.0", "non-commercial"),
        ("dots", None, "unknown"),
    ]


def test_a_later_checkpoint_with_another_license_is_refused(
    variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    """The license of the published card does not count as a decision for later checkpoints."""
    from huggingface_hub import HfApi

    repo, base, models = (
        repo_name("target"),
        variant("base", license="mit"),
        {"shapes": variant("shapes", license="mit")},
    )
    assert hubmerge("run", written(tmp_path, base, models, repo=repo))[0] == 0
    models["dots"] = variant("dots", license="gpl-3.0")
    status, _, errors = hubmerge("run", written(tmp_path, base, models, repo=repo))
    assert status == 2
    assert f"gpl-3.0 (strong copyleft): {models['dots']}; mit (permissive): {base}, {models['shapes']}" in errors
    assert [tag.name for tag in HfApi().list_repo_refs(repo).tags] == ["step-01"]
    status, _, errors = hubmerge("run", written(tmp_path, base, models, repo=repo, license="gpl-3.0"))
    assert status == 0, errors
    assert metadata(published(repo, "README.md"))["license"] == "gpl-3.0"
    assert hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")[0] == 0


def test_a_notice_of_other_people_stays(variant: Variant, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    from huggingface_hub import HfApi

    repo = repo_name("target")
    HfApi().create_repo(repo)
    HfApi().upload_file(repo_id=repo, path_in_repo="NOTICE", path_or_fileobj=b"Mine\n")
    base, shapes = variant("base", license="mit"), variant("shapes", license="apache-2.0")
    assert hubmerge("run", written(tmp_path, base, {"shapes": shapes}, repo=repo))[0] == 0
    assert published(repo, "NOTICE") == "Mine\n"
    assert "NOTICE" not in json.loads(published(repo, "hubmerge.json"))["all_files"]


def test_licenses_of_local_folders_are_read(variant: Variant, hubmerge: Command, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    base = snapshot_download(variant("base", license="mit"))
    shapes = snapshot_download(variant("shapes", license="cc-by-nc-4.0"))
    status, output, _ = hubmerge("plan", written(tmp_path, base, {"shapes": shapes}), "--verbose")
    assert status == 0
    assert "         cc-by-nc-4.0 (non-commercial): shapes" in output
