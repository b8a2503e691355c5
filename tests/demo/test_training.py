"""Tests of a short training: accuracy, seeds, and the weights that fine-tuning changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPModel

from hubmerge.demo import train_stream, training
from hubmerge.demo.make_stream import make_stream
from hubmerge.demo.plan import TrainingPlan
from hubmerge.demo.stream import DemoStream
from hubmerge.demo.tasks import find_tasks
from tests.checks import every

SHORT = TrainingPlan(base_tasks=("shapes", "gradients"), base_images=160, base_steps=60, task_images=96, task_steps=12)

TASKS = ("gradients", "slants")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> DemoStream:
    folder = tmp_path_factory.mktemp("trained")
    return make_stream(folder, 0, TASKS, lines.append, plan=SHORT)


def test_progress_is_reported(stream: DemoStream, lines: list[str]) -> None:
    assert stream.is_complete()
    assert any("step 60 of 60" in line for line in lines)
    assert any(line.startswith("fine-tuned gradients (") for line in lines)
    assert lines[-1].startswith("mean accuracy")


def test_the_base_learned(stream: DemoStream) -> None:
    model = CLIPModel.from_pretrained(stream.base.folder)
    tokenizer = AutoTokenizer.from_pretrained(stream.base.folder)
    (task,) = find_tasks(["gradients"])
    images, labels = task.images("plain", 80, seed=99)
    with torch.no_grad():
        texts = training.text_features(model, tokenizer(task.prompts, padding=True, return_tensors="pt"))
        guesses = (training.image_features(model, training.to_pixels(images)) @ texts.T).argmax(dim=1)
    right = float((guesses == torch.tensor(labels)).double().mean())
    assert right > 0.5, "five sides, so a fifth is chance"


def test_the_number_of_processes_does_not_change_the_bytes(
    stream: DemoStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_stream, "PROCESSES", 1)
    again = make_stream(tmp_path, 0, TASKS, lambda _: None, plan=SHORT)
    assert stream.repos()
    for first, second in zip(stream.repos(), again.repos(), strict=True):
        assert any(path.is_file() for path in first.folder.rglob("*"))
        for path in sorted(first.folder.rglob("*")):
            if path.is_file():
                assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes(), path


def test_fine_tuning_changes_only_the_vision_tower(stream: DemoStream) -> None:
    base = CLIPModel.from_pretrained(stream.base.folder)
    tokenizer = AutoTokenizer.from_pretrained(stream.base.folder)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    (task,) = find_tasks(["gradients"])
    with training.threads(1):  # As in the training: sums depend on the number of threads.
        tuned = training.fine_tune(base, tokenizer, task, 0, SHORT)
    moved = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert every(name.startswith("vision_model.") for name in moved)
    assert every(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    written = load_file(stream.tower("gradients").folder / "model.safetensors")
    for name, value in tuned.vision_model.state_dict().items():
        found = written.get(name, written.get(f"vision_model.{name}"))
        assert found is not None
        assert torch.equal(found, value)


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    with training.threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
