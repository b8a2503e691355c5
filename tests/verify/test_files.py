"""An extra, missing or changed file of a published step is found, also if the report was sealed again with it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.report.file_list import FileRecord
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from hubmerge.support.hashing import file_digest
from tests.checks import every
from tests.run.test_runs import MERGED
from tests.stage import Stage
from tests.verify.published import Command, Copy, Verify, published, report_files

EXTRA = (
    "pytorch_model.bin",
    "modeling_clip.py",
    "chat_template.jinja",
    "generation_config.json",
    "adapter_config.json",
    "adapter_model.bin",
    "adapter_model.safetensors",
    "sub/model.safetensors",
    "sub/.gitattributes",
    "hubmerge.json.bak",
    ".gitignore",
)


def sealed_again(original: str, files: dict[str, bytes], without: str = "") -> bytes:
    """Return the report of the original with the digests of changed files, as a forger would seal it."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    changed = {name: FileRecord(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
    listed = {name: record for name, record in {**report.all_files, **changed}.items() if name != without}
    return dataclasses.replace(report, all_files=listed).to_json().encode()


def test_extra_files_are_found(original: str, verify: Verify, copy: Copy) -> None:
    files = dict.fromkeys(EXTRA, b"{}")
    status, output, _ = verify(copy(files), "--quick")
    assert status == 6
    for name in EXTRA:
        assert f"differs  files: {name} is not in the list of files in the report" in output
    status, output, _ = verify(copy({**files, "hubmerge.json": sealed_again(original, files)}), "--quick")
    assert status == 6
    assert "in the list of files" not in output
    for name in EXTRA:
        assert f"differs  files: {name} is not a file of this step" in output


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_beside_a_single_weight_file_is_found(original: str, verify: Verify, copy: Copy, name: str) -> None:
    """Somebody sealed a new list with the index in it."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    index = json.dumps({"weight_map": {"logit_scale": "other.safetensors"}}).encode()
    listed = {**report.all_files, name: FileRecord(hashlib.sha256(index).hexdigest(), len(index))}
    files = report_files(dataclasses.replace(report, all_files=listed))
    status, output, errors = verify(copy({**files, name: index}), "--quick")
    assert status == 6, output + errors
    assert f"differs  files: {name} is not a file of this step: it has one weight file" in output


def test_changed_and_missing_files_are_found(original: str, verify: Verify, copy: Copy) -> None:
    """The list finds them, and if it was sealed again, the listing of the base model does."""
    name = "preprocessor_config.json"
    content = json.dumps(json.loads(published(original, name)) | {"do_resize": False}).encode()
    status, output, _ = verify(copy({name: content}), "--quick")
    assert status == 6
    assert f"differs  files: {name} does not match the list of files in the report" in output
    status, output, _ = verify(
        copy({name: content, "hubmerge.json": sealed_again(original, {name: content})}), "--quick"
    )
    assert status == 6
    assert f"differs  files: {name} is not the file of the base model" in output
    repo = copy({})
    HfApi().delete_file(name, repo_id=repo)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert f"differs  files: {name} is missing: the report lists it" in output
    HfApi().upload_file(
        repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=sealed_again(original, {}, without=name)
    )
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert f"differs  files: {name} of the base model is missing" in output


@pytest.mark.parametrize("name", ["config.json", "accuracy_matrix.png"])
def test_a_changed_file_that_hubmerge_writes_is_found_by_writing_it(
    original: str, verify: Verify, copy: Copy, name: str
) -> None:
    content = published(original, name)
    content = content.replace(b'"bos_token_id": 853', b'"bos_token_id": 1') if name == "config.json" else b"x"
    assert content != published(original, name)
    status, output, _ = verify(copy({name: content, "hubmerge.json": sealed_again(original, {name: content})}))
    assert status == 6
    assert f"files: {name} is not the " in output


ATTRIBUTES = (
    "* text eol=crlf",
    "*.json working-tree-encoding=UTF-16",
    "README.md ident",
    "*.json filter=x",
    "[attr]x -text",
)


def test_attributes_of_git_that_change_files_are_found(original: str, verify: Verify, copy: Copy) -> None:
    repo, harmless = copy({}), published(original, ".gitattributes") + b"# a comment\n\n"
    for line in ATTRIBUTES:
        attributes = harmless + line.encode() + b"\n"
        HfApi().upload_file(repo_id=repo, path_in_repo=".gitattributes", path_or_fileobj=attributes)
        status, output, _ = verify(repo, "--quick")
        assert status == 6
        assert f".gitattributes changes files when git checks them out: '{line}'" in output
    HfApi().upload_file(repo_id=repo, path_in_repo=".gitattributes", path_or_fileobj=harmless)
    assert "differs" not in verify(repo, "--quick")[1]


def test_changed_metadata_of_a_weight_file_is_found(original: str, verify: Verify, copy: Copy, tmp_path: Path) -> None:
    """All values are equal, and all digests of the report fit."""
    weights = tmp_path / "weights"
    save_file(load_file(hf_hub_download(original, MERGED)), weights, metadata={"format": "pt", "note": "x"})
    report = RunReport.from_json(sealed_again(original, {MERGED: weights.read_bytes()}).decode())
    files = {**report.steps[-1].files, MERGED: file_digest(weights)}
    report = dataclasses.replace(report.with_step(dataclasses.replace(report.steps[-1], files=files)))
    status, output, _ = verify(copy({MERGED: weights.read_bytes(), **report_files(report)}))
    assert status == 6
    assert f"{MERGED}: the metadata in its header is not the recomputed one" in output


def test_a_small_change_of_a_kept_tensor_is_found(original: str, verify: Verify, copy: Copy, tmp_path: Path) -> None:
    """Rounding explains differences of merged tensors alone."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    for file in report.steps[-1].files:
        tensors = load_file(hf_hub_download(original, file))
        name = next((key for key in tensors if key.startswith("text_model.") and key.endswith("fc1.bias")), None)
        if name is not None:
            break
    assert name is not None
    tensors[name][0] += 1e-8
    save_file(tensors, tmp_path / "weights", metadata={"format": "pt"})
    content = (tmp_path / "weights").read_bytes()
    report = RunReport.from_json(sealed_again(original, {file: content}).decode())
    files = {**report.steps[-1].files, file: file_digest(tmp_path / "weights")}
    report = report.with_step(dataclasses.replace(report.steps[-1], files=files))
    status, output, _ = verify(copy({file: content, **report_files(report)}))
    assert status == 6
    assert f"tensor {name!r} is not that of the base model, which is kept" in output


def test_a_dropped_task_is_found(original: str, verify: Verify, copy: Copy) -> None:
    """A bad score disappears with its task: from tasks, scores and matrix, sealed again."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    dropped = report.tasks[0].name
    steps = []
    for step in report.steps:
        scores = {name: values for name, values in step.scores.items() if name != dropped}
        steps.append(dataclasses.replace(step, scores=scores))
    for step in steps:
        report = report.with_step(step)
    report = dataclasses.replace(report, tasks=report.tasks[1:])
    status, output, _ = verify(copy(report_files(report)), "--quick")
    assert status == 6
    assert f"differs  recipe: task {dropped} of hubmerge.yaml is not in the report" in output


@pytest.mark.parametrize("field", ["license: mit", "inference: false", "thumbnail: https://example.invalid/a.png"])
def test_a_changed_field_of_the_card_is_found(original: str, verify: Verify, copy: Copy, field: str) -> None:
    card = published(original, "README.md").decode()
    key = field.partition(":")[0]
    lines = [line for line in card.splitlines() if not line.startswith(f"{key}:")]
    changed = "\n".join([lines[0], lines[1], field, *lines[2:], ""]).encode()
    changes = {"README.md": changed, "hubmerge.json": sealed_again(original, {"README.md": changed})}
    status, output, _ = verify(copy(changes), "--quick")
    assert status == 6
    assert "differs  card: README.md does not agree with the report" in output


def test_a_card_that_claims_another_form_is_not_excused(original: str, verify: Verify, copy: Copy) -> None:
    card = published(original, "README.md").decode().replace("# hubmerge card form", "# hubmerge cart form")
    changed = card.replace("into one model", "into one wonderful model").encode()
    changes = {"README.md": changed, "hubmerge.json": sealed_again(original, {"README.md": changed})}
    status, output, _ = verify(copy(changes), "--quick")
    assert status == 6
    assert "differs  card: " in output


def test_a_changed_license_of_a_data_set_is_found(original: str, verify: Verify, copy: Copy, stage: Stage) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    assert every(task.licenses == (License(("apache-2.0",)),) for task in report.tasks)
    for stated, text in ((License(("mit",)), "mit"), (License(), "unknown")):
        tasks = (dataclasses.replace(report.tasks[0], licenses=(stated,)), *report.tasks[1:])
        status, output, errors = verify(copy(report_files(dataclasses.replace(report, tasks=tasks))), "--quick")
        assert status == 6, output + errors
        name = stage.datasets[report.tasks[0].name]
        assert f"its license of data set {name} is {text}, but the card there states apache-2.0" in output


OTHERS_ON_THE_STATE_BRANCH = {
    "weights.safetensors": b"theirs",
    "model.pkl": b"theirs",
    "FOLDER/extra.safetensors": b"theirs",
    "FOLDER/loader.py": b"import os",
    "FOLDER/deeper/state.json": b"{}",
    "0123456789abcdef0123456789abcde/state.json": b"{}",
    "docs/notes.md": b"theirs",
    "chat_template.jinja": b"theirs",
}


def test_other_files_on_the_state_branch_are_found(
    original: str, verify: Verify, copy: Copy, stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    digest = RunReport.from_json(published(original, "hubmerge.json").decode()).steps[-1].state_digest
    assert digest is not None
    folder = digest.removeprefix("sha256:")[:32]
    changes = {name.replace("FOLDER", folder): content for name, content in OTHERS_ON_THE_STATE_BRANCH.items()}
    repo = copy({}, changes)
    status, output, errors = verify(repo, "--quick")
    assert status == 6, output + errors
    line = next(line for line in output.splitlines() if "differs  state: on branch hubmerge-state: " in line)
    assert line.endswith("and 3 more are not files of a state; runs do not read them")
    for name in sorted(changes)[:5]:
        assert name in line
    more = stage.recipe(repo)
    extra = {"model": more["models"][0]["model"], "name": "again"}
    recipe = stage.write(tmp_path, {**more, "models": [*more["models"], extra]})
    status, _, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "work")
    assert status == 0, errors
    names = {path.name for path in (tmp_path / "work").rglob("*")}
    assert not names & {name.rpartition("/")[2] for name in changes} - {"state.json"}


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "picture.png"])
def test_texts_and_pictures_on_the_state_branch_are_no_difference(
    original: str, verify: Verify, copy: Copy, name: str
) -> None:
    status, output, errors = verify(copy({}, {name: b"theirs"}), "--quick")
    assert status in (0, 7), output + errors
    assert "differs" not in output
