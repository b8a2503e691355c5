"""Fine-tunes with heads of their own on a base model without one: the body is merged, the heads are kept beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

import hubmerge as package
from hubmerge.checkpoints import open_checkpoint
from hubmerge.checkpoints.planning.task_heads import find_head
from hubmerge.errors import CheckpointError
from tests.checkpoints.families import LANGUAGE, VISION
from tests.checkpoints.files import random_tensors, write_folder
from tests.layouts.classifiers import BERT, ONE, TWO, Command, make_model
from tests.run.test_warnings import write

Names = Callable[..., str]
Pair = Callable[..., list[Path]]
CASES = {
    "BertForSequenceClassification": ("BertModel", LANGUAGE),
    "BertForTokenClassification": ("BertForMaskedLM", LANGUAGE),
    "BertForQuestionAnswering": ("BertModel", LANGUAGE),
    "RobertaForSequenceClassification": ("RobertaForMaskedLM", LANGUAGE),
    "ViTForImageClassification": ("ViTModel", VISION),
    "LlamaForSequenceClassification": ("LlamaForCausalLM", {**LANGUAGE, "tie_word_embeddings": False}),
}


@pytest.fixture
def models(tmp_path: Path) -> Pair:
    """Save a base model without a head, and two checkpoints with heads for different classes."""

    def save(task_class: str) -> list[Path]:
        base_class, settings = CASES[task_class]
        base = make_model(base_class, settings, 0)
        base.save_pretrained(tmp_path / "base")
        body = dict(base.base_model.state_dict())
        for seed, (name, labels) in enumerate((("one", ONE), ("two", TWO)), start=1):
            tuned = make_model(task_class, settings, seed, labels)
            for key, value in tuned.base_model.state_dict().items():
                if key in body and value.is_floating_point():
                    value.copy_(
                        body[key] + 0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
                    )
            tuned.config.problem_type = "single_label_classification"
            tuned.save_pretrained(tmp_path / name)
        return [tmp_path / name for name in ("base", "one", "two")]

    return save


def head_of(out: Path, name: str = "one") -> dict[str, torch.Tensor]:
    return load_file(out / "heads" / f"{name}.safetensors")


def check_head(out: Path, task_class: str, name: str, labels: list[str], expected: dict[str, torch.Tensor]) -> None:
    """Check the facts of a published head, and that it loads on the merged body with the expected weights."""
    facts = json.loads((out / "heads" / f"{name}.json").read_text())
    assert (facts["architecture"], facts["labels"]) == (task_class, labels)
    assert facts["problem_type"] == "single_label_classification"
    loaded = package.load_head(out, name)
    assert type(loaded).__name__ == task_class
    assert list(loaded.config.id2label.values()) == labels
    values, head = loaded.state_dict(), head_of(out, name)
    assert {key: values[key].shape for key in head} == {key: value.shape for key, value in head.items()}
    compared = {key: value for key, value in values.items() if value.is_floating_point()}
    assert head.keys() < compared.keys()
    for key, value in compared.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task_class", list(CASES))
def test_the_body_is_merged_and_each_head_is_published(
    hubmerge: Command, tmp_path: Path, models: Pair, task_class: str
) -> None:
    import transformers

    base, *checkpoints = models(task_class)
    out = tmp_path / "out"
    recipe = write(tmp_path, base, *checkpoints, merge_method="weight_average")
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "the checkpoint's own head: kept beside the merged model, in heads/" in text
    status, text, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors
    assert sorted(path.name for path in (out / "heads").iterdir()) == [
        "one.json",
        "one.safetensors",
        "two.json",
        "two.safetensors",
    ]
    report = json.loads((out / "hubmerge.json").read_text())
    assert {"heads/one.json", "heads/two.safetensors"} < set(report["all_files"])
    tuned = [getattr(transformers, task_class).from_pretrained(folder).state_dict() for folder in checkpoints]
    body = {key: (tuned[0][key] + tuned[1][key]) / 2 for key in tuned[0].keys() & tuned[1].keys() - set(head_of(out))}
    check_head(out, task_class, "one", ONE, body | {key: tuned[0][key] for key in head_of(out)})
    check_head(out, task_class, "two", TWO, body | {key: tuned[1][key] for key in head_of(out)})
    card = (out / "README.md").read_text()
    assert f"| one | `{task_class}` | cat, dog, owl | single_label_classification | `heads/one.safetensors` |" in card
    code = card.partition("## Heads")[2].partition("```python\n")[2].partition("```")[0]
    values: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(out)), values)  # noqa: S102 - code that hubmerge wrote
    assert list(values["model"].config.id2label.values()) == ONE


def test_heads_of_earlier_steps_are_taken_from_the_published_step_and_verify(
    hubmerge: Command, tmp_path: Path, models: Pair, repo_name: Names
) -> None:
    base, one, two = models(BERT)
    repo = repo_name("merged")
    first = write(tmp_path, base, one, publish={"repo": repo})
    assert hubmerge("run", first, "--work-dir", tmp_path / "first")[0] == 0
    both = write(tmp_path, base, one, two, publish={"repo": repo})
    status, text, errors = hubmerge("run", both, "--work-dir", tmp_path / "second")
    assert status == 0, errors
    status, text, errors = hubmerge("verify", repo)
    assert status == 0, errors + text
    assert "differs" not in text
    for name, folder in (("one", one), ("two", two)):
        loaded = package.load_head(repo, name, revision="step-02")
        torch.testing.assert_close(
            loaded.classifier.weight.data, load_file(folder / "model.safetensors")["classifier.weight"]
        )
    with pytest.raises(CheckpointError, match=r"there is no head 'three'") as caught:
        package.load_head(repo, "three")
    assert caught.value.hint == "heads of this model: one, two"


def test_a_changed_head_is_found_by_verify_and_by_the_loader(
    hubmerge: Command, tmp_path: Path, models: Pair, repo_name: Names
) -> None:
    base, one, _ = models(BERT)
    repo = repo_name("merged")
    assert hubmerge("run", write(tmp_path, base, one, publish={"repo": repo}))[0] == 0
    file = Path(hf_hub_download(repo, "heads/one.safetensors"))
    changed = tmp_path / "changed.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, changed, {"format": "pt"})
    HfApi().upload_file(path_or_fileobj=changed, path_in_repo="heads/one.safetensors", repo_id=repo)
    HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="heads/else.json", repo_id=repo)
    status, text, errors = hubmerge("verify", repo, "--quick")
    assert status != 0
    assert "heads/one.safetensors does not match the list of files in the report" in text + errors
    assert "heads/else.json is not in the list of files in the report" in text + errors
    with pytest.raises(CheckpointError, match=r"one\.safetensors does not match the digest"):
        package.load_head(repo, "one")


def test_heads_that_are_lost_are_taken_from_the_checkpoints(hubmerge: Command, tmp_path: Path, models: Pair) -> None:
    base, one, two = models(BERT)
    assert hubmerge("run", write(tmp_path, base, one))[0] == 0
    (lost,) = (tmp_path / "work").glob("*/cache/heads")
    shutil.rmtree(lost)
    status, _, errors = hubmerge("run", write(tmp_path, base, one, two), "--out", tmp_path / "out")
    assert status == 0, errors
    for name, folder in (("one", one), ("two", two)):
        head, model = (
            load_file(tmp_path / "out" / "heads" / f"{name}.safetensors"),
            load_file(folder / "model.safetensors"),
        )
        assert head
        for key, value in head.items():
            torch.testing.assert_close(value, model[key])


def test_excluded_heads_are_not_published(hubmerge: Command, tmp_path: Path, models: Pair) -> None:
    recipe = write(tmp_path, *models(BERT), tensors={"exclude": ["classifier.*"]})
    status, _, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors
    assert not (tmp_path / "out" / "heads").exists()
    assert "## Heads" not in (tmp_path / "out" / "README.md").read_text()


def test_a_head_of_somebody_else_in_the_target_repo_is_not_replaced(
    hubmerge: Command, tmp_path: Path, models: Pair, repo_name: Names
) -> None:
    base, one, _ = models(BERT)
    repo = repo_name("merged")
    HfApi().create_repo(repo)
    HfApi().upload_file(path_or_fileobj=b"mine", path_in_repo="heads/one.json", repo_id=repo)
    status, text, errors = hubmerge("run", write(tmp_path, base, one, publish={"repo": repo}))
    assert status != 0
    assert f"target repo {repo} has files that hubmerge did not publish: heads/one.json" in text + errors


@pytest.mark.parametrize(
    "more",
    [
        {"vision_tower.layers.0.weight": (8, 8)},
        {"bert.encoder.layer.7.output.dense.weight": (16, 24)},
        {"score.weight": (3, 16)},
    ],
)
def test_other_tensors_that_the_base_model_lacks_are_no_head(
    hubmerge: Command, tmp_path: Path, models: Pair, more: dict[str, tuple[int, ...]]
) -> None:
    base, one, _ = models(BERT)
    tensors = load_file(one / "model.safetensors") | random_tensors(more)
    save_file(tensors, one / "model.safetensors", {"format": "pt"})
    with open_checkpoint(base) as opened, open_checkpoint(one) as checkpoint:
        assert find_head(opened, checkpoint) == ("classifier.bias", "classifier.weight")
    status, text, errors = hubmerge("plan", write(tmp_path, base, one))
    assert status == 4
    assert f"tensor {min(more)!r} is not in the base model" in text + errors
    assert "classifier" not in text + errors


def test_heads_of_timm_are_found_by_their_module(tmp_path: Path) -> None:
    body = {f"blocks.{number}.attn.qkv.weight": (12, 4) for number in range(3)}
    head = {"head.fc.weight": (2, 4), "head.fc.bias": (2,)}
    config = {
        "architecture": "convnext_tiny",
        "num_classes": 2,
        "label_names": TWO,
        "pretrained_cfg": {"classifier": "head.fc"},
    }
    base = write_folder(tmp_path / "base", random_tensors(body), {**config, "num_classes": 0, "label_names": []})
    one = write_folder(tmp_path / "one", random_tensors({**body, **head}, 1), config)
    with open_checkpoint(base) as opened, open_checkpoint(one) as checkpoint:
        assert find_head(opened, checkpoint) == tuple(head)


@pytest.mark.filterwarnings("ignore")
def test_heads_that_adapters_saved_are_published(hubmerge: Command, tmp_path: Path, models: Pair) -> None:
    from peft import LoraConfig, get_peft_model

    base, _, _ = models(BERT)
    rows = {"one": 3, "two": 2}
    for seed, (name, count) in enumerate(rows.items(), start=1):
        tuned = make_model(BERT, LANGUAGE, seed, [str(number) for number in range(count)])
        adapted = get_peft_model(tuned, LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS"))
        adapted.save_pretrained(str(tmp_path / f"lora-{name}"))
    recipe = write(tmp_path, base, merge_method="weight_average")
    entries = [{"model": f"{base}+{tmp_path}/lora-{name}", "name": name} for name in rows]
    recipe.write_text(json.dumps({"merge_method": "weight_average", "base_model": str(base), "models": entries}))
    status, text, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors + text
    for name, count in rows.items():
        loaded = package.load_head(tmp_path / "out", name)
        assert type(loaded).__name__ == BERT
        assert loaded.classifier.weight.shape == (count, 16)
        saved = load_file(tmp_path / f"lora-{name}" / "adapter_model.safetensors")
        torch.testing.assert_close(loaded.classifier.bias.data, saved["base_model.model.classifier.bias"])


def test_state_dicts_with_heads_of_their_own_are_refused(models: Pair) -> None:
    base, one, _ = models(BERT)
    config = json.loads((base / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"'classifier\.bias' and 1 more are not in the base model"):
        package.merge_state_dicts(
            load_file(base / "model.safetensors"), [load_file(one / "model.safetensors")], config=config
        )
