"""The metadata of the card are judged before the merge: by the rules of the Hub, and by the Hub itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.cards.merge_cards import merged_card
from hubmerge.localhub import LocalHub
from tests.localhub.planting import plant
from tests.reliability.conftest import RequestHook, request_hook
from tests.stage import Stage

__all__ = ["request_hook"]

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


@pytest.fixture
def repo(repo_name: Names) -> str:
    return repo_name("target")


def written(stage: Stage, folder: Path, repo: str, **publish: Any) -> Path:
    publish = {"repo": repo, **publish}
    return stage.write(folder, stage.recipe(repo, entries=tuple(stage.towers)[:1], evaluate=None, publish=publish))


def front_matter(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


@pytest.mark.parametrize(
    ("publish", "key", "expected"),
    [
        (
            {"license": "Apache 2"},
            "license",
            '"Apache 2" is not a license identifier of the Hub; did you mean apache-2.0?',
        ),
        ({"license": "other"}, "license", "`license: other` needs a license_name and a license_link"),
        (
            {"license": "other", "license_name": "mine", "license_link": "LICENSE"},
            "license_link",
            "neither the base model nor the target repo has a file LICENSE",
        ),
        ({"license": "mit", "license_link": "terms.txt"}, "license_link", '"terms.txt" is not a link to a license'),
    ],
)
def test_a_license_that_the_hub_refuses_ends_the_run_before_the_merge(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo: str, publish: dict[str, str], key: str, expected: str
) -> None:
    from huggingface_hub import HfApi

    recipe = written(stage, tmp_path, repo, **publish)
    line = next(number for number, text in enumerate(recipe.read_text().splitlines(), 1) if f"  {key}: " in text)
    for command in ("plan", "run"):
        status, output, errors = hubmerge(command, recipe)
        assert status == 2
        assert f"{recipe}:{line}:" in errors
        assert f"publish.{key}: {expected}" in errors
        assert "hint: " in errors
        assert "merge" not in output
    assert not HfApi().repo_exists(repo)


def test_a_license_file_of_the_target_counts(stage: Stage, hubmerge: Command, tmp_path: Path, repo: str) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo(repo)
    HfApi().upload_file(repo_id=repo, path_in_repo="LICENSE", path_or_fileobj=b"Mine\n")
    keys = {"license": "other", "license_name": "mine", "license_link": "LICENSE"}
    status, _, errors = hubmerge("run", written(stage, tmp_path, repo, **keys))
    assert status == 0, errors
    card = Path(HfApi().hf_hub_download(repo, "README.md")).read_text()
    assert {key: value for key, value in front_matter(card).items() if key in keys} == keys


def test_metadata_that_people_wrote_are_judged_too(
    local_hub: LocalHub, stage: Stage, hubmerge: Command, tmp_path: Path, repo: str
) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo(repo)
    plant(local_hub, repo, "README.md", b"---\nlanguage: [EN, klingon]\nthumbnail: 2024-01-01\n---\n# Mine\n")
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, written(stage, tmp_path, repo))
        assert status == 3
        assert f"README.md of target repo {repo}: the Hub does not accept its metadata: " in errors
        assert '"language[0]" must only contain lowercase characters' in errors
        assert '"language[1]" with value "klingon" is not valid.' in errors
        assert "correct the metadata at the top of README.md there" in errors


def test_the_judgment_of_the_hub_counts(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo: str, request_hook: RequestHook
) -> None:
    """The Hub may have rules that hubmerge does not know."""
    from huggingface_hub import HfApi

    recipe = written(stage, tmp_path, repo, tags=["no such tag"])
    body = json.dumps({"errors": [{"message": '"tags[3]" is a bad tag'}], "warnings": []}).encode()
    for command in ("plan", "run"):
        request_hook.refuse("POST /api/validate-yaml", status=400, body=body)
        status, output, errors = hubmerge(command, recipe)
        assert status == 2
        assert f"{recipe}:" in errors
        assert 'the Hub refuses the metadata of the card; the Hub says: "tags[3]" is a bad tag' in errors
        assert "step 1: merge" not in output
    assert not HfApi().repo_exists(repo)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_hub_without_this_check_is_no_obstacle(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo: str, request_hook: RequestHook, status: int
) -> None:
    request_hook.refuse("POST /api/validate-yaml", status=status)
    assert hubmerge("plan", written(stage, tmp_path, repo))[0] == 0
    assert any(request.startswith("POST /api/validate-yaml") for request in request_hook.seen)


def test_an_unlisted_license_of_the_base_model_is_not_carried_on(
    local_hub: LocalHub, stage: Stage, hubmerge: Command, tmp_path: Path, repo: str, repo_name: Names
) -> None:
    from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

    base, api = repo_name("base"), HfApi()
    api.create_repo(base)
    files = [path for path in Path(snapshot_download(stage.base)).iterdir() if path.name != "README.md"]
    operations = [CommitOperationAdd(path.name, path) for path in files]
    api.create_commit(base, operations, commit_message="Add files")
    plant(local_hub, base, "README.md", b"---\nlicense: Apache License\n---\n")
    recipe = stage.recipe(repo, entries=tuple(stage.towers)[:1], evaluate=None, base_model=base)
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 0, errors
    assert f"license unknown: {base} (its card states apache license)" in output
    assert "license" not in front_matter(Path(api.hf_hub_download(repo, "README.md")).read_text())
    assert hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")[0] == 0


GENERATED = """---
# hubmerge card form 3
tags: [merge]
model-index:
- name: merged
  results:
  - {task: {type: a}, dataset: {type: me/scored, name: b}, metrics: [{type: accuracy, value: 0.5}]}
---

# merged
"""


@pytest.mark.parametrize(
    ("first_line", "datasets", "expected"),
    [
        ("# hubmerge card form 2\n", "[me/scored, me/trained]", ["me/trained"]),
        ("", "[me/scored]", None),
        ("# hubmerge card form 3\n", "[me/scored, me/trained]", ["me/scored", "me/trained"]),
        ("# hubmerge card form 2\n", "me/trained", ["me/trained"]),
    ],
)
def test_datasets_that_an_earlier_version_declared_are_dropped(
    first_line: str, datasets: str, expected: list[str] | None
) -> None:
    """Forms 1 and 2 declared the data of scores as training data. What people add to a newer card stays."""
    existing = f"---\n{first_line}tags: [mine]\ndatasets: {datasets}\n---\n\n# merged\n"
    found = front_matter(merged_card(GENERATED, existing)).get("datasets")
    assert found == expected
