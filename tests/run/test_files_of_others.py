"""Files of other people in the target repo are neither deleted nor replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, hf_hub_download

from hubmerge.cards.merge_cards import BEGIN, END
from hubmerge.support.folder_lock import locked_folder
from tests.run.test_runs import MERGED
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]

CARD = b"---\nlicense: mit\nlanguage: en\ntags: [mine]\n---\n# My model\n\nAbout it.\n"


def put(repo: str, files: dict[str, bytes]) -> None:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    HfApi().create_commit(repo, operations, commit_message="Add files")


def content(repo: str, name: str, revision: str = "main") -> bytes:
    return Path(hf_hub_download(repo, name, revision=revision)).read_bytes()


def recipe(stage: Stage, folder: Path, repo: str, entries: int, **publish: Any) -> Path:
    names = tuple(stage.towers)[:entries]
    return stage.write(folder, stage.recipe(repo, entries=names, evaluate=None, publish={"repo": repo, **publish}))


def test_a_first_run_keeps_what_is_there(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo = repo_name("target")
    HfApi().create_repo(repo)
    put(repo, {"README.md": CARD, "LICENSE": b"MIT\n", "NOTES.md": b"notes\n", "onnx/model.onnx": b"\0onnx"})
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 2))
    assert status == 0, errors
    for revision in ("step-01", "step-02"):
        assert content(repo, "LICENSE", revision) == b"MIT\n"
        assert content(repo, "NOTES.md", revision) == b"notes\n"
        assert content(repo, "onnx/model.onnx", revision) == b"\0onnx"
    text = content(repo, "README.md").decode()
    assert text.index("# My model\n\nAbout it.\n") < text.index(BEGIN) < text.index(END)
    card = ModelCard(text).data.to_dict()
    assert (card["license"], card["language"]) == ("mit", "en")
    assert {"merge", "hubmerge", "opcm", "mine"} <= set(card["tags"])
    _, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert "card: people added: text above the generated part, metadata language, license, tags" in output
    assert "same     files: of other people, as they were at this step: LICENSE, NOTES.md, onnx/model.onnx" in output
    assert "differs" not in output
    put(repo, {"LICENSE": b"BSD\n", "added.md": b"added\n", "README.md": text.replace("mit", "bsd").encode()})
    _, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert "differs  files: LICENSE is not in the list of files in the report" in output
    assert "differs  files: added.md is not in the list of files in the report" in output
    assert "README.md does not agree with the report: its metadata differ in language, license, tags" in output


def test_a_later_step_keeps_what_people_added(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    text = content(repo, "README.md").decode()
    edited = text.replace(BEGIN, f"# My own title\n\n{BEGIN}") + "\nMy last words.\n"
    edited = edited.replace("library_name: transformers", "library_name: transformers\nlanguage: de")
    put(repo, {"README.md": edited.encode(), "LICENSE": b"MIT\n", "NOTES.md": b"notes\n", "onnx/model.onnx": b"\0onnx"})
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 2))
    assert status == 0, errors
    after = content(repo, "README.md", "step-02").decode()
    assert after.index("# My own title\n") < after.index(BEGIN) < after.index("step-02") < after.index(END)
    assert after.endswith("\nMy last words.\n")
    assert ModelCard(after).data.to_dict()["language"] == "de"
    _, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert "text above the generated part, text below the generated part, metadata language" in output
    assert "differs" not in output
    for name in ("LICENSE", "NOTES.md", "onnx/model.onnx"):
        assert content(repo, name, "step-02") == content(repo, name, "main")
    before = HfApi().list_repo_commits(repo)[0].commit_id
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    assert HfApi().list_repo_commits(repo)[0].commit_id == before


def test_changes_that_the_next_step_replaces_are_named_before_the_merge(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    text = content(repo, "README.md").decode()
    put(repo, {"README.md": text.replace(BEGIN, f"# Mine\n\n{BEGIN}").encode()})
    path = recipe(stage, tmp_path, repo, 2)
    assert "was changed where hubmerge writes" not in hubmerge("plan", path)[1]
    edited = text.replace(f"{BEGIN}\n", f"{BEGIN}\nWords of mine.\n").replace(
        "library_name: transformers", "library_name: x"
    )
    put(repo, {"README.md": edited.encode()})
    message = f"README.md of {repo} was changed where hubmerge writes; the next step replaces the text between the two "
    message += "comments, metadata library_name"
    assert message in hubmerge("plan", path)[1]
    status, output, errors = hubmerge("run", path)
    assert status == 0, errors
    assert output.index(message) < output.index("step 2: merge")
    after = content(repo, "README.md").decode()
    assert "Words of mine." not in after
    assert ModelCard(after).data.to_dict()["library_name"] == "transformers"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "accuracy_matrix.png", "report.html"])
def test_a_file_in_the_way_is_named_before_the_merge(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, name: str
) -> None:
    repo = repo_name("target")
    HfApi().create_repo(repo)
    put(repo, {name: b"{}"})
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, recipe(stage, tmp_path, repo, 1))
        assert status == 3
        assert f"target repo {repo} has files that hubmerge did not publish: {name}" in errors
        assert "hint: " in errors
    assert content(repo, name) == b"{}"


@pytest.mark.parametrize("name", ["config.json", "hubmerge.yaml", "report.html", MERGED])
def test_a_published_file_that_was_changed_is_not_replaced(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, name: str
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    changed = content(repo, name) + b"\n"
    put(repo, {name: changed})
    for command in ("plan", "run"):
        status, _, errors = hubmerge(command, recipe(stage, tmp_path, repo, 2))
        assert status == 3, errors
        assert f"has files that hubmerge did not publish: {name}; the next step would replace them" in errors
    assert content(repo, name) == changed


def test_a_card_without_its_marks_is_not_replaced(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1))[0] == 0
    put(repo, {"README.md": content(repo, "README.md").replace(BEGIN.encode(), b"")})
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 2))
    assert status == 3
    assert "README.md of target repo" in errors
    assert BEGIN in errors


def test_the_license_of_the_recipe_replaces_that_of_the_card(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    HfApi().create_repo(repo)
    put(repo, {"README.md": CARD})
    assert hubmerge("run", recipe(stage, tmp_path, repo, 1, license="apache-2.0"))[0] == 0
    assert ModelCard(content(repo, "README.md").decode()).data.to_dict()["license"] == "apache-2.0"


def test_rolling_back_keeps_what_people_added(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    text = content(repo, "README.md").decode().replace(BEGIN, f"# My own title\n\n{BEGIN}")
    put(repo, {"README.md": text.encode(), "NOTES.md": b"notes\n"})
    status, _, errors = hubmerge("rollback", repo, "--to", "step-01")
    assert status == 0, errors
    card = content(repo, "README.md").decode()
    assert card.index("# My own title\n") < card.index(BEGIN) < card.index("step-01")
    assert content(repo, "NOTES.md") == b"notes\n"
    assert content(repo, "hubmerge.json") == content(repo, "hubmerge.json", "step-01")
    put(repo, {"config.json": b"{}"})
    HfApi().create_tag(repo, tag="step-02")
    status, _, errors = hubmerge("rollback", repo, "--to", "step-02")
    assert status == 3
    assert "tag step-02 of" in errors
    assert "whose report ends at step 1" in errors
    status, _, errors = hubmerge("rollback", repo, "--to", "step-01")
    assert status == 3
    assert "config.json; rolling back would replace them" in errors


def test_a_missing_tag_is_set_on_the_commit_with_the_report_of_the_step(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    """Commits of people have misleading titles, and the report of the step below them."""
    repo, api = repo_name("target"), HfApi()
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    before = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    for tag in before:
        api.delete_tag(repo, tag=tag)
    add = [CommitOperationAdd("NOTES.md", b"notes\n")]
    api.create_commit(repo, add, commit_message="step-02: a note about this step")
    api.create_tag(repo, tag="step-²")
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 2))
    assert status == 0, errors
    after = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo).tags}
    assert {tag: after[tag] for tag in before} == before


def test_runs_with_one_output_folder_are_refused(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked_folder(out, "--out"):
        status, _, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(None)), "--out", out)
    assert status == 5
    assert f"--out {out}: another command is writing this folder" in errors
    assert not out.exists()
