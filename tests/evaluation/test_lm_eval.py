"""Tasks of lm-evaluation-harness that a recipe defines, on tiny Llama models."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.errors import EvaluationError
from tests.evaluation.harness_tasks import (
    CHOICE,
    GENERATE,
    KIND,
    QUESTIONS,
    ROLLING,
    ROWS,
    Rows,
    folder,
    make_task,
    prepare,
    scorer,
)
from tests.evaluation.small_text import opened, save_model, save_tokenizer

__all__ = ["folder", "scorer"]  # fixtures


@torch.no_grad()
def log_probability(model: Any, tokenizer: Any, context: str, text: str) -> float:
    start = tokenizer(context)["input_ids"]
    whole = tokenizer(f"{context} {text}")["input_ids"]
    logs = torch.log_softmax(model(torch.tensor([whole])).logits[0], -1)
    return sum(float(logs[place - 1, whole[place]]) for place in range(len(start), len(whole)))


def test_multiple_choice_gives_what_a_plain_loop_gives(folder: Path, scorer: Any) -> None:
    prepared = prepare(make_task(CHOICE), scorer)
    assert (prepared.examples, prepared.class_names, prepared.metric_names) == (12, (), ("acc",))
    seen = []
    for name in ("base", "other", "base"):
        scorer.load(opened(folder / name))
        hits = [
            max(
                (log_probability(scorer.model, scorer.tokenizer, question, one), -place)
                for place, one in enumerate(choices)
            )
            == (log_probability(scorer.model, scorer.tokenizer, question, choices[answer]), -answer)
            for question, choices, answer in zip(ROWS["question"], ROWS["choices"], ROWS["answer"], strict=True)
        ]
        values = prepared.score(scorer)
        share = sum(hits) / 12
        assert values["acc"] == pytest.approx(share)
        assert values["acc_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 11))
        seen.append(values)
    assert seen[0] == seen[2]


def test_a_text_is_scored_by_the_probability_of_its_bytes(folder: Path, scorer: Any) -> None:
    scorer.load(opened(folder / "other"))
    prepared = prepare(make_task(ROLLING, metrics=["word_perplexity", "byte_probability"]), scorer)
    assert prepared.metric_names == ("byte_probability", "word_perplexity")
    begin = scorer.tokenizer.bos_token
    total = sum(log_probability(scorer.model, scorer.tokenizer, begin, text) for text in ROWS["text"])
    values = prepared.score(scorer)
    assert values["byte_probability"] == pytest.approx(math.exp(total / sum(map(len, ROWS["text"]))), rel=1e-4)
    words = sum(len(text.split()) for text in ROWS["text"])
    assert values["word_perplexity"] == pytest.approx(math.exp(-total / words), rel=1e-4)
    assert prepared.score(scorer) == values
    assert prepare(make_task(ROLLING), scorer).metric_names == ("byte_probability",)


def test_generated_answers_are_scored(folder: Path, scorer: Any) -> None:
    scorer.load(opened(folder / "base"))
    first = prepare(make_task(GENERATE), scorer).score(scorer)
    assert set(first) == {"exact_match", "exact_match_stderr"}
    prompts = [scorer.tokenizer(question, return_tensors="pt")["input_ids"] for question in QUESTIONS]
    answers = [
        scorer.tokenizer.decode(
            scorer.model.generate(one, max_new_tokens=4, do_sample=False)[0, one.shape[1] :], skip_special_tokens=True
        )
        for one in prompts
    ]
    right = {**ROWS, "word": [one if number < 5 else "never" for number, one in enumerate(answers)]}
    values = prepare(make_task(GENERATE, metrics=["exact_match", "chrf"]), scorer, Rows(right)).score(scorer)
    assert values["exact_match"] == pytest.approx(5 / 12)
    assert 0 < values["chrf"] < 1


def test_few_shots_limit_and_seed(folder: Path, scorer: Any) -> None:
    scorer.load(opened(folder / "base"))
    rows = Rows()
    keys = {"fewshot_split": "train", **CHOICE, "doc_to_text": "{{word}}"}
    prepared = prepare(make_task(keys, num_fewshot=2, limit=5, batch_size=1), scorer, rows)
    assert (prepared.examples, prepared.batch_size) == (5, 1)
    assert rows.asked == [("me/questions", "train"), ("me/questions", "test")]
    values = prepared.score(scorer)
    built = prepared.built["tasks"]["mine"]
    contexts = [one.args[0] for one in built.instances]
    assert len(contexts) == 10
    assert contexts[0].count("\n\n") == 2
    assert prepared.score(scorer) == values
    assert [one.args[0] for one in built.instances] == contexts
    other = prepare(make_task(keys, num_fewshot=2, limit=5, seed=7), scorer)
    other.score(scorer)
    assert [one.args[0] for one in other.built["tasks"]["mine"].instances] != contexts


def test_a_head_of_its_own_stays_untied(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "LlamaForCausalLM", 0, tie_word_embeddings=True, max_position_embeddings=64)
    own = save_model(tmp_path / "own", "LlamaForCausalLM", 1, tie_word_embeddings=False, max_position_embeddings=64)
    save_tokenizer(tmp_path / "base", around=False)
    scorer = KIND.open_scorer(tmp_path / "base", opened(tmp_path / "base"), identity="0" * 40)
    scorer.load(opened(tmp_path / "own"), check_frozen=False)
    before = scorer.model.lm_head.weight.clone()
    prepare(make_task(ROLLING), scorer).score(scorer)
    assert torch.equal(scorer.model.lm_head.weight, before)
    assert torch.equal(before, own.lm_head.weight)


def test_the_random_numbers_of_the_run_go_on(scorer: Any) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    prepare(make_task(CHOICE, limit=2), scorer).score(scorer)
    assert torch.equal(torch.rand(2), expected)


def test_outputs_that_are_not_finite_are_told(folder: Path) -> None:
    scorer = KIND.open_scorer(folder / "base", opened(folder / "base"), identity="0" * 40)
    prepared = prepare(make_task(CHOICE), scorer)
    with torch.no_grad():
        scorer.model.model.norm.weight[0] = torch.nan
    with pytest.raises(EvaluationError, match="not finite"):
        prepared.score(scorer)


def test_templates_run_in_a_sandbox(scorer: Any, tmp_path: Path) -> None:
    made = tmp_path / "made"
    attack = f"{{{{ cycler.__init__.__globals__.os.system('touch {made}') }}}}"
    for key in ("doc_to_text", "doc_to_target", "description"):
        task = make_task({**ROLLING, key: attack})
        with pytest.raises(EvaluationError, match="unsafe"):
            prepare(task, scorer).score(scorer)
    assert not made.exists()


def test_the_harness_is_quiet_and_leaves_nothing_behind(scorer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    task, utils, bars = map(importlib.import_module, ("lm_eval.api.task", "lm_eval.utils", "tqdm"))
    before = (utils.env, task.datasets, bars.tqdm.__init__, sys.stdout)
    prepare(make_task(ROLLING, num_fewshot=1), scorer).score(scorer)
    assert capfd.readouterr() == ("", "")
    assert (utils.env, task.datasets, bars.tqdm.__init__, sys.stdout) == before
