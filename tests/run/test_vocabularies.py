"""Runs with tokenizers and chat templates: published, locked, verified; warnings and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import hubmerge as api
from tests.mergekit.vocabularies import bytes_tokenizer, write_model
from tests.run.vocabulary_models import EMBEDDINGS, linear, merged, models, written

__all__ = ["models"]  # fixtures

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def repos(models: Path) -> dict[str, str]:
    """Return the repos of the models on the Hub, and of a tokenizer without a model."""
    client, found = HfApi(), {}
    tokenizer = models.parent / "tokenizer-alone"
    bytes_tokenizer("low lower", ["<alone>"]).save_pretrained(tokenizer)
    (tokenizer / "README.md").write_text("---\nlicense: isc\n---\n", encoding="utf-8")
    for name, folder in (*((name, models / name) for name in ("base", "a", "b")), ("alone", tokenizer)):
        found[name] = f"words/{name}"
        client.create_repo(found[name], exist_ok=True)
        client.upload_folder(repo_id=found[name], folder_path=folder)
    return found


def test_a_union_is_published_extended_and_verified_and_a_changed_tokenizer_is_found(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        "tokenizer": {"tokens": {"<x>": {"source": {"kind": "zero"}}}, "pad_to_multiple_of": 8},
        "chat_template": "chatml",
        "publish": {"repo": "words/union"},
    }
    recipe = written(tmp_path, linear(repos["base"], repos["a"], **keys))
    status, output, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "tokens   union: " in output
    assert '"<x>"' in output
    assert "  zeros\n" in output
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, output + errors
    extended = written(tmp_path / "more", linear(repos["base"], repos["a"], repos["b"], **keys))
    status, output, errors = hubmerge("run", extended, "--work-dir", str(tmp_path / "work"))
    assert status == 0, output + errors
    status, output, errors = hubmerge("verify", "words/union@step-02")
    assert status == 0, output + errors
    assert "recomputed: the same bytes" in output
    report = json.loads(Path(hf_hub_download("words/union", "hubmerge.json")).read_text(encoding="utf-8"))
    found, rows = report["steps"][-1]["tokenizer"], report["steps"][-1]["tokenizer"]["rows"]
    assert (found["source"], rows % 8, sorted(found["sources"])) == (
        "union",
        0,
        [repos[name] for name in ("a", "b", "base")],
    )
    assert found["tokens"] == len(AutoTokenizer.from_pretrained("words/union"))
    card = Path(hf_hub_download("words/union", "README.md")).read_text(encoding="utf-8")
    assert f"The vocabulary has the tokens of all models, those of [`{repos['base']}`]" in card
    settings = Path(hf_hub_download("words/union", "tokenizer.json"))
    changed = settings.read_text(encoding="utf-8").replace("<x>", "<y>")
    HfApi().upload_file(repo_id="words/union", path_or_fileobj=changed.encode(), path_in_repo="tokenizer.json")
    status, output, errors = hubmerge("verify", "words/union")
    assert status != 0
    assert "tokenizer.json does not match the list of files in the report" in output + errors
    assert "tokenizer.json is not the recomputed one" in output + errors


def test_a_tokenizer_of_a_model_that_is_not_merged_is_locked(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    recipe = written(tmp_path, linear(repos["base"], repos["b"], tokenizer_source=repos["alone"], fetch="ranges"))
    status, output, errors = hubmerge("run", recipe, "--out", str(tmp_path / "out"))
    assert status == 0, output + errors
    assert "a row in no model: zeros are taken for " in output + errors
    lock = yaml.safe_load((tmp_path / "out" / "hubmerge.lock.yaml").read_text(encoding="utf-8"))
    assert (lock["tokenizer"]["reference"], len(lock["tokenizer"]["commit"])) == (repos["alone"], 40)
    tokens = AutoTokenizer.from_pretrained(repos["alone"]).get_vocab()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokens
    found = load_file(tmp_path / "out" / "model.safetensors")[EMBEDDINGS]
    assert torch.equal(found[tokens["<alone>"]], torch.zeros(8))
    status, output, errors = hubmerge("verify", str(tmp_path / "out"))
    assert status == 0, output + errors
    statement = (tmp_path / "out" / "hubmerge.intoto.json").read_text(encoding="utf-8")
    assert '"tokenizer"' in statement
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    assert (report["version"], report["tokenizer"]["reference"]) == (6, repos["alone"])
    assert report["tokenizer"]["licenses"] == [{"identifiers": ["isc"]}]
    parts = json.loads((tmp_path / "out" / "hubmerge.cdx.json").read_text(encoding="utf-8"))["components"]
    (lender,) = (part for part in parts if part["bom-ref"] == "tokenizer")
    assert lender["licenses"] == [{"license": {"id": "ISC"}}]
    assert f"tokenizer of {report['tokenizer']['name']}" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    notice = (tmp_path / "out" / "NOTICE").read_text(encoding="utf-8")
    assert f"{repos['alone']} at {lock['tokenizer']['commit']}: isc" in notice


def test_a_stage_whose_tokenizer_is_lent_has_its_license(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    first = linear(repos["base"], repos["b"], tokenizer_source=repos["alone"])
    last = linear("first", repos["a"], tokenizer_source="base")
    recipe.write_text(yaml.safe_dump_all([{"name": "first", **first}, last]), encoding="utf-8")
    status, output, errors = hubmerge("run", str(recipe), "--out", str(tmp_path / "out"))
    assert status == 0, output + errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    (stage,) = report["stages"]
    assert (report["version"], stage["tokenizer"]["licenses"]) == (6, [{"identifiers": ["isc"]}])
    notice = (tmp_path / "out" / "NOTICE").read_text(encoding="utf-8")
    assert f"tokenizer of {stage['tokenizer']['name']} of first: {repos['alone']} at " in notice
    status, output, errors = hubmerge("verify", str(tmp_path / "out"))
    assert status == 0, output + errors


@pytest.mark.parametrize("method", ["opcm", "dare_linear"])
def test_other_tokens_under_one_number_of_rows_are_warned_of(
    method: str, models: Path, hubmerge: Command, tmp_path: Path
) -> None:
    keys = {"parameters": {"weight": 0.5}} if method == "dare_linear" else {}
    names = [str(models / name) for name in ("same", "swapped")]
    recipe = {"merge_method": method, "base_model": str(models / "base"), "models": [{"model": one} for one in names]}
    file = written(tmp_path, {**recipe, **keys, "chat_template": "llama3"})
    rows = json.loads((models / "base" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    first, last = sorted((rows["e"], rows["l"]))
    letters = {rows["e"]: "e", rows["l"]: "l"}
    text = (
        f"{models / 'swapped'}: 2 rows belong to other tokens: row {first} is '{letters[last]}' and "
        f"'{letters[first]}' in the base model; row {last} is"
    )
    for command in (["check", file], ["plan", file], ["run", file, "--out", str(tmp_path / "out")]):
        status, output, errors = hubmerge(*command)
        assert status == 0, errors
        assert (output + errors).count(text) == 1, output + errors
        assert f"{models / 'same'}: " not in output + errors
    steps = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))["steps"]
    assert [sum(text in one for one in step["warnings"]) for step in steps][-1] == 1
    assert "2 rows belong to other tokens" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "<|eot_id|>" in str(AutoTokenizer.from_pretrained(tmp_path / "out").chat_template)
    status, output, errors = hubmerge("verify", str(tmp_path / "out"))
    assert status == 0, output + errors


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        (("base", "pieces"), {}, "its tokenizer is Unigram, expected BPE over bytes as that of"),
        (("base", "a"), {"tokenizer": {"tokens": {"<q>": {"source": "DIR/a"}}}}, "'<q>' is not one of its tokens"),
        (("bare", "a"), {}, "it has no files of a tokenizer, which the vocabulary of the merged model begins with"),
        (("base", "uneven"), {}, "tensor 'lm_head.weight' has 3 rows of tokens and 'model.embed_tokens.weight' has"),
    ],
    ids=["kinds", "token", "base", "rows"],
)
def test_what_cannot_be_joined_is_refused_with_the_cause(
    names: tuple[str, ...], keys: dict[str, Any], expected: str, models: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("base", "a", "pieces"):
        (home / name).symlink_to(models / name)
    write_model(home / "bare", 1, bytes_tokenizer("low"))
    for path in (home / "bare").glob("tokenizer*"):
        path.unlink()
    write_model(home / "uneven", 2, bytes_tokenizer("low"))
    tensors = load_file(home / "uneven" / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(3, 8)
    save_file(tensors, home / "uneven" / "model.safetensors", metadata={"format": "pt"})
    placed = json.loads(json.dumps(keys).replace("DIR", str(home)))
    recipe = linear(*(home / name for name in names), **(placed or {"tokenizer_source": "union"}))
    with pytest.raises(api.CheckpointError, match=expected) as caught:
        api.plan(written(tmp_path, recipe), progress=None)
    assert caught.value.hint is not None


def test_other_kinds_merge_the_tokens_that_they_share_into_the_vocabulary_of_the_base_model(
    models: Path, tmp_path: Path
) -> None:
    out = merged(linear(models / "base", models / "pieces", tokenizer_source="base"), tmp_path)
    base, other = (AutoTokenizer.from_pretrained(models / name).get_vocab() for name in ("base", "pieces"))
    rows = [load_file(folder / "model.safetensors")[EMBEDDINGS] for folder in (out, models / "base", models / "pieces")]
    for token, number in base.items():
        own = rows[2][other[token]] if token in other else rows[2].new_zeros(0)
        given = own if own.numel() else rows[1][number]
        assert torch.allclose(rows[0][number], (rows[1][number] + given) / 2, atol=1e-6) or not own.numel()
    assert base.keys() & other.keys() >= {"<s>", "</s>", "e", "w"}


def test_a_model_without_a_tokenizer_counts_as_one_with_the_tokens_of_the_base_model(
    models: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "bare", 3, bytes_tokenizer("low lower lowest new newer newest"))
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    recipe = linear(models / "base", tmp_path / "bare", models / "a", tokenizer_source="union")
    plan = api.plan(written(tmp_path, recipe), progress=None)
    assert any("its rows count as those of the base model's tokens" in line for line in plan.data["loading"])
    assert plan.data["tokenizer"]["table"][0]["row"] == str(models / "a")


@pytest.mark.parametrize(
    "keys", [{"tokenizer_source": "base"}, {"tokenizer": {"source": "base", "pad_to_multiple_of": 7}}]
)
def test_a_model_with_more_tokens_than_the_merged_model_loses_their_rows(keys: dict[str, Any], tmp_path: Path) -> None:
    folders = [
        write_model(tmp_path / name, seed, bytes_tokenizer("low lower", added))
        for seed, (name, added) in enumerate({"base": [], "more": ["<more>"], "most": ["<more>", "<most>"]}.items())
    ]
    out = merged(linear(*folders, **keys), tmp_path)
    tokens = len(AutoTokenizer.from_pretrained(folders[0]))
    rows = [load_file(folder / "model.safetensors")[EMBEDDINGS][:tokens] for folder in folders]
    found = load_file(out / "model.safetensors")[EMBEDDINGS]
    assert len(found) == (tokens if "tokenizer_source" in keys else -(-tokens // 7) * 7)
    assert torch.allclose(found[:tokens], sum(rows) / 3)


def test_means_in_bfloat16_are_rounded_once(models: Path, tmp_path: Path) -> None:
    for name in ("base", "a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for path in (models / name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        tensors = {key: one.bfloat16() for key, one in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = linear(*(tmp_path / name for name in ("base", "a", "b")), tokenizer_source="union")
    out = merged({**recipe, "form": "joint"}, tmp_path / "run")
    found = load_file(out / "model.safetensors")[EMBEDDINGS]
    assert found.dtype == torch.bfloat16
    number = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<both>")
    places = [AutoTokenizer.from_pretrained(tmp_path / name).convert_tokens_to_ids("<both>") for name in ("a", "b")]
    own = [
        load_file(tmp_path / name / "model.safetensors")[EMBEDDINGS][place].double()
        for name, place in zip(("a", "b"), places, strict=True)
    ]
    mean = (own[0] + own[1]) / 2
    assert torch.equal(found[number], ((mean + own[0] + own[1]) / 3).float().bfloat16())


def test_tasks_are_refused_where_the_vocabulary_changes(models: Path, tmp_path: Path) -> None:
    task = {"name": "t", "kind": "causal-lm", "metrics": ["perplexity"], "dataset": {"path": str(tmp_path)}}
    recipe = linear(models / "base", models / "a", tokenizer_source="union", evaluate={"tasks": [task]})
    with pytest.raises(api.HubmergeError, match="scored with the tokenizer of the base model"):
        api.plan(written(tmp_path, recipe), progress=None)
