"""Tests of the two language streams: sentences, training, and runs of their recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubmerge.cli.main import main
from hubmerge.demo.language.__main__ import main as language_main
from hubmerge.demo.language.__main__ import push_language
from hubmerge.demo.language.models import make_tokenizer
from hubmerge.demo.language.tasks import CLASSIFICATION, WRITING
from hubmerge.demo.language.texts import SentenceTask
from hubmerge.demo.language.training import LanguagePlan

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
TASKS = (*CLASSIFICATION, *WRITING)
SMALL = LanguagePlan(sentences=64, base_steps=30, task_steps=4)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_sentences_are_seeded_and_separate(task: SentenceTask) -> None:
    texts, labels = task.sentences("test", 60, seed=3)
    assert (texts, labels) == task.sentences("test", 60, seed=3)
    assert texts != task.sentences("test", 60, seed=4)[0]
    assert labels == [number % len(task.classes) for number in range(60)]
    assert not set(texts) & set(task.sentences("train", 300, seed=3)[0])
    assert not any("{" in text for text in texts)


def test_classes_of_all_tasks_share_one_head() -> None:
    classes = [name for task in CLASSIFICATION for name in task.classes]
    assert len(classes) == len(set(classes)) == 13


def test_the_tokenizer_knows_every_word() -> None:
    tokenizer = make_tokenizer(text for task in TASKS for text in task.vocabulary())
    texts = [text for task in TASKS for kind in ("plain", "test") for text in task.sentences(kind, 200, 0)[0]]
    assert len(texts) > 1000
    for tokens in tokenizer(texts)["input_ids"]:
        assert tokenizer.unk_token_id not in tokens
        assert (tokens[0], tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert len(tokens) <= tokenizer.model_max_length


def test_the_recipes_of_both_streams_run(tmp_path: Path) -> None:
    from transformers import pipeline

    said: list[str] = []
    assert push_language(tmp_path / "made", progress=said.append, plan=SMALL) == 16
    for recipe, tasks in (("language-quickstart", CLASSIFICATION), ("language-writing", WRITING)):
        out = tmp_path / recipe
        arguments = ["run", str(RECIPES / f"{recipe}.yaml"), "--work-dir", str(tmp_path / "work"), "--out", str(out)]
        assert main([*arguments, "--quiet"]) == 0
        report = json.loads((out / "hubmerge.json").read_text())
        names = [task.name for task in tasks]
        assert [step["name"] for step in report["steps"]] == names
        for scores in (report["base_scores"], report["own_scores"], report["steps"][-1]["scores"]):
            assert set(scores) == set(names)
            for values in scores.values():
                assert 0 <= values["accuracy"] <= 1
                assert ("perplexity" in values) == (recipe == "language-writing")
                assert values.get("perplexity", 2.0) > 1
        assert {task["examples"] for task in report["tasks"]} == {300}
    classify = pipeline("text-classification", model=str(tmp_path / "language-quickstart"))
    assert classify("who wrote the book")[0]["label"] in {name for task in CLASSIFICATION for name in task.classes}
    card = (tmp_path / "language-writing" / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "| weather | perplexity |" in card


def test_scores_of_a_writer_equal_those_of_transformers(tmp_path: Path) -> None:
    """Compare scores of the first step, whose merged model is the checkpoint, with those of transformers."""
    push_language(tmp_path / "made", progress=lambda _: None, plan=SMALL)
    text = (RECIPES / "language-writing.yaml").read_text().partition("publish:")[0]
    path = tmp_path / "recipe.yaml"
    path.write_text(text.partition("  - model: hubmerge-demo/tiny-gpt2_kitchen")[0] + _tail(text))
    assert (
        main(["run", str(path), "--work-dir", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    )
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text())
    merged, own = report["steps"][0]["scores"]["weather"], report["own_scores"]["weather"]
    assert merged == pytest.approx(own, rel=1e-5)
    assert own["perplexity"] < report["base_scores"]["weather"]["perplexity"]


def _tail(text: str) -> str:
    rest = "\nparameters" + text.partition("parameters")[2]
    return rest.partition("    - name: kitchen")[0]


def test_the_public_hub_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.co")
    assert language_main([]) == 3
    assert "huggingface.co" in capsys.readouterr().err
