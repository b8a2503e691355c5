"""Tasks scored with the own heads of checkpoints: what transformers gives for the merged body and that head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file

from hubmerge.checkpoints import open_checkpoint
from hubmerge.checkpoints.planning.task_heads import describe_head, find_head
from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.own_head import HeadFacts, OwnHead
from merge_recipes import Task
from tests.evaluation.small_text import WORDS, rows_of, save_tokenizer
from tests.evaluation.test_image_classification import SMALL
from tests.evaluation.test_image_classification import rows_of as images_of

Command = Callable[..., tuple[int, str, str]]
LABELS = ("good", "bad", "dog")
SIZE = len(WORDS) + 4
BERT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": SIZE, "max_position_embeddings": 16, "pad_token_id": 1}  # fmt: skip
LLAMA = {**BERT, "num_key_value_heads": 2}
TEXT_BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("BertModel", BERT),
    "RobertaForSequenceClassification": ("RobertaForMaskedLM", BERT),
    "ElectraForSequenceClassification": ("ElectraModel", {**BERT, "embedding_size": 16}),
    "DistilBertForSequenceClassification": (
        "DistilBertModel",
        {"dim": 16, "hidden_dim": 24, "n_layers": 1, "n_heads": 2, "vocab_size": SIZE, "max_position_embeddings": 16,
         "pad_token_id": 1},
    ),
    "LlamaForSequenceClassification": ("LlamaForCausalLM", LLAMA),
    "GPT2ForSequenceClassification": (
        "GPT2Model",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": SIZE, "pad_token_id": 1},
    ),
}  # fmt: skip
IMAGE_BODIES = {
    "ViTForImageClassification": "ViTModel",
    "Dinov2ForImageClassification": "Dinov2Model",
    "SwinForImageClassification": "SwinModel",
    "ConvNextForImageClassification": "ConvNextModel",
}


def names_of(labels: tuple[str, ...]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: row for row, name in enumerate(labels)}}


def save(folder: Path, kind: str, settings: dict[str, Any], seed: int, labels: tuple[str, ...] | None = None) -> Any:
    model_class = getattr(transformers, kind)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        names = {} if labels is None else names_of(labels)
        model = model_class(model_class.config_class(**{**settings, **names})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def save_processor(folder: Path) -> None:
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def opened(folder: Path) -> Any:
    return open_checkpoint(folder, folder.name)


def head_of(base: Path, tuned: Path) -> OwnHead:
    checkpoint = opened(tuned)
    names = find_head(opened(base), checkpoint)
    assert names
    facts = HeadFacts.of(tuned.name, describe_head(checkpoint, names, opened(base).config))
    return OwnHead(facts, lambda: {name: checkpoint.read(name) for name in names})


def prepared_with(kind: str, base: Path, tuned: Path, rows: datasets.Dataset, cache: Path) -> tuple[Any, Any]:
    task = Task.model_validate_json(json.dumps({"name": "x", "kind": kind, "dataset": {"path": "me/x"}}))
    task_kind: Any = task_kind_named(kind)
    scorer = task_kind.open_head_scorer(base, opened(base), head_of(base, tuned), identity="0" * 40)
    return scorer, task_kind.prepare(task, rows, scorer, cache, dataset_commit=None, batch_size=7)


@torch.no_grad()
def text_logits(model: Any, folder: Path, rows: datasets.Dataset, limit: int) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    options = {"truncation": True, "max_length": limit, "return_tensors": "pt"}
    found = [model(**{key: value for key, value in tokenizer(text, **options).items() if key != "token_type_ids"})
             for text in rows["text"]]  # fmt: skip
    return torch.cat([one.logits for one in found]).numpy()


@pytest.mark.parametrize("kind", TEXT_BODIES)
def test_texts_get_what_transformers_gives_for_the_body_and_the_head(kind: str, tmp_path: Path) -> None:
    base_kind, settings = TEXT_BODIES[kind]
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save(base, base_kind, settings, 0)
    save_tokenizer(base)
    model = save(tuned, kind, settings, 1, LABELS)
    rows = rows_of(LABELS, 12)
    scorer, prepared = prepared_with("text-classification", base, tuned, rows, tmp_path / "cache")
    scorer.load(opened(tuned), check_frozen=False)
    np.testing.assert_allclose(
        prepared.logits(scorer), text_logits(model, base, rows, scorer.max_tokens), rtol=1e-3, atol=1e-4
    )
    scorer.load_base()
    body = getattr(transformers, base_kind).from_pretrained(base).base_model
    values = body.state_dict()
    model.base_model.load_state_dict({**model.base_model.state_dict(), **values}, strict=False)
    np.testing.assert_allclose(
        prepared.logits(scorer), text_logits(model, base, rows, scorer.max_tokens), rtol=1e-3, atol=1e-4
    )
    assert prepared.class_names == LABELS
    scorer.release()
    assert scorer.model is None


@pytest.mark.parametrize("kind", IMAGE_BODIES)
def test_images_get_what_transformers_gives_for_the_body_and_the_head(kind: str, tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save(base, IMAGE_BODIES[kind], SMALL[kind], 0)
    save_processor(base)
    labels = ("cat", "dog", "bus")
    model = save(tuned, kind, SMALL[kind], 1, labels)
    rows = images_of(6, labels)
    scorer, prepared = prepared_with("image-classification", base, tuned, rows, tmp_path / "cache")
    for weights in (tuned, base):
        scorer.load(opened(weights), check_frozen=weights == base)
        if weights == base:
            body = getattr(transformers, IMAGE_BODIES[kind]).from_pretrained(base).state_dict()
            model.base_model.load_state_dict(body, strict=False)
        processor = transformers.AutoImageProcessor.from_pretrained(base, backend="pil")
        with torch.no_grad():
            wanted = [model(**processor(images=image, return_tensors="pt")).logits[0] for image in rows["image"]]
        np.testing.assert_allclose(prepared.logits(scorer), torch.stack(wanted).numpy(), rtol=1e-3, atol=1e-4)


def test_a_head_that_needs_more_than_the_body_is_not_filled_at_random(tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    save(base, "BertModel", BERT, 0)
    save_tokenizer(base)
    save(tuned, "BertForSequenceClassification", BERT, 1, LABELS)
    whole = head_of(base, tuned)
    part = OwnHead(whole.facts, lambda: {"classifier.bias": whole.read()["classifier.bias"]})
    task_kind: Any = task_kind_named("text-classification")
    scorer = task_kind.open_head_scorer(base, opened(base), part, identity="0" * 40)
    with pytest.raises(EvaluationError, match=r"with the head of tuned lacks the tensor 'classifier.weight'"):
        scorer.load_base()


@pytest.fixture
def stream(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe that merges two BERT fine-tunes with heads of their own, with a task for each."""
    save(tmp_path / "base", "BertModel", BERT, 0)
    save_tokenizer(tmp_path / "base")
    for seed, (name, labels) in enumerate((("moods", ("good", "bad")), ("pets", LABELS)), start=1):
        save(tmp_path / name, "BertForSequenceClassification", BERT, seed, labels)
        (tmp_path / f"data-{name}").mkdir()
        rows_of(labels, 12).to_parquet(tmp_path / f"data-{name}" / "test.parquet")

    def write(entries: tuple[str, ...] = ("moods", "pets"), changes: Any = None, more: Any = (), **keys: Any) -> Path:
        tasks = [
            {"name": name, "kind": "text-classification", "dataset": {"path": str(tmp_path / f"data-{name}")}}
            for name in entries
        ]
        for task in tasks:
            task.update((changes or {}).get(task["name"], {}))
        recipe = {
            "merge_method": "weight_average",
            "base_model": str(tmp_path / "base"),
            "models": [*({"model": str(tmp_path / name), "name": name} for name in entries), *more],
            "evaluate": {"tasks": tasks},
            **keys,
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        return path

    return write


def test_a_stream_is_scored_with_the_heads_of_its_entries_and_verifies(
    hubmerge: Command, tmp_path: Path, stream: Callable[..., Path], repo_name: Callable[..., str]
) -> None:
    repo = repo_name("merged")
    target = {"repo": repo, "license": "mit"}
    status, _, errors = hubmerge("run", stream(("moods",), publish=target), "--work-dir", tmp_path / "first")
    assert status == 0, errors
    # Another machine: the head of the first step comes from the published step.
    status, output, errors = hubmerge("run", stream(publish=target), "--work-dir", tmp_path / "second")
    assert status == 0, errors
    folder = Path(HfApi().snapshot_download(repo))
    report = json.loads((folder / "hubmerge.json").read_text())
    assert {task["name"]: task["head"] for task in report["tasks"]} == {"moods": "moods", "pets": "pets"}
    assert set(report["base_scores"]) == set(report["own_scores"]) == {"moods", "pets"}
    for name, labels in (("moods", ("good", "bad")), ("pets", LABELS)):
        rows = rows_of(labels, 12)
        model: Any = transformers.BertForSequenceClassification.from_pretrained(tmp_path / name)
        truth = np.asarray(rows["label"])
        own = (text_logits(model, tmp_path / "base", rows, 16).argmax(1) == truth).mean()
        assert report["own_scores"][name]["accuracy"] == pytest.approx(own)
        model.bert.load_state_dict(load_file(folder / "model.safetensors"))
        merged = (text_logits(model, tmp_path / "base", rows, 16).argmax(1) == truth).mean()
        assert report["steps"][-1]["scores"][name]["accuracy"] == pytest.approx(merged)
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    # Published scores keep their head: another one would give scores that cannot be compared.
    third = {"model": str(tmp_path / "pets"), "name": "again"}
    again = stream(changes={"moods": {"head": "pets"}}, publish=target, more=[third])
    status, output, errors = hubmerge("plan", again)
    assert status == 2
    assert "the steps so far were scored with the head of moods, the recipe asks for pets" in errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "cats"}, "the stream has no entry of this name; its entries: moods, pets"),
        ({"head": "moods"}, "the head of moods has no class 'dog'"),
        ({"head": "base"}, "the base model is a BertModel, text classification needs a classification head"),
        ({"class_names": ["good", "bad", "fish"]}, "the head of pets has no class 'fish'"),
        ({"kind": "causal-lm", "head": "pets", "metrics": ["perplexity"]}, "tasks of the kind causal-lm have no head"),
    ],
)
def test_a_head_that_does_not_fit_is_found_before_any_weight_is_read(
    hubmerge: Command, stream: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    status, output, errors = hubmerge("plan", stream(changes={"pets": changes}))
    assert status == 2
    assert message in output + errors
    assert "recipe.yaml:" in errors
    if "head" in changes and changes["head"] != "base":  # what the base model lacks does not follow from it
        assert "needs a classification head" not in errors
