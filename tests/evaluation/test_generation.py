"""Generated answers and their metrics, on tiny Llama models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import sacrebleu
import torch

from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.generation import before_stop
from hubmerge.evaluation.harness_checks import check_language_task
from hubmerge.evaluation.prompts import check_columns, filled
from hubmerge.evaluation.text_scores import normalized, score_texts
from merge_recipes import Task
from tests.evaluation.small_text import opened, save_model, save_tokenizer, sentences

KIND = task_kind_named("generation")
QUESTIONS = sentences(9, seed=5)
CHAT = "{% for one in messages %}{{ one.content }} on{% endfor %}"


def make_task(**keys: Any) -> Task:
    dataset = {"path": "me/questions", "label": "answer", **keys.pop("dataset", {})}
    values = {"name": "mine", "kind": "generation", "prompt": "the {question}", "max_new_tokens": 6, **keys}
    return Task.model_validate_json(json.dumps({**values, "dataset": dataset}))


def rows_of(answers: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"question": QUESTIONS[: len(answers)], "answer": answers})


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("generating")
    model = save_model(folder, "LlamaForCausalLM", 4, max_position_embeddings=32, tie_word_embeddings=False)
    # What a model's own file asks for must not make its answers random.
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=40, repetition_penalty=3.0)
    model.generation_config.save_pretrained(folder)
    save_tokenizer(folder)
    return KIND.open_scorer(folder, opened(folder), identity="0" * 40)


def prepare(scorer: Any, task: Task, answers: Any = None, batch_size: int = 4) -> Any:
    rows = rows_of(["cat"] * 9 if answers is None else answers)
    return KIND.prepare(task, rows, scorer, Path(), dataset_commit=None, batch_size=batch_size)


@torch.no_grad()
def greedy(scorer: Any, prompt: str, most: int = 6) -> str:
    """One token after another, without padding or cache."""
    tokens = scorer.tokenizer(prompt)["input_ids"][:-1]  # without the end token
    found: list[int] = []
    while len(found) < most:
        best = int(scorer.model(torch.tensor([tokens + found])).logits[0, -1].argmax())
        if best == scorer.tokenizer.eos_token_id:
            break
        found.append(best)
    return str(scorer.tokenizer.decode(found, skip_special_tokens=True))


VLLM = """
import torch
from transformers import AutoModelForCausalLM

class SamplingParams:
    def __init__(self, *, temperature, max_tokens, stop):
        assert temperature == 0.0
        self.most, self.stop = max_tokens, stop

class Output:
    def __init__(self, text):
        self.outputs, self.text = [self], text

class LLM:
    def __init__(self, *, model, dtype, seed, max_model_len, trust_remote_code):
        from transformers import AutoTokenizer
        assert (dtype, seed, max_model_len, trust_remote_code) == ("float32", 0, 32, False)
        self.model, self.tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)

    def generate(self, prompts, params, *, use_tqdm):
        assert not use_tqdm
        found = []
        for prompt in prompts:
            tokens = torch.tensor([prompt["prompt_token_ids"]])
            output = self.model.generate(input_ids=tokens, max_new_tokens=params.most)[0, tokens.shape[1]:]
            found.append(Output(self.tokenizer.decode(output, skip_special_tokens=True)))
        return found
"""


def test_the_interface_of_vllm(scorer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the documented arguments of vllm receives the model, its end tokens and the prompts."""
    (tmp_path / "vllm.py").write_text(VLLM)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        own, others = (prepare(scorer, make_task(engine=one, stop=["cat"])) for one in ("transformers", "vllm"))
        scorer.model.generation_config.do_sample = False  # a temperature without sampling cannot be saved
        assert others.answers(scorer) == own.answers(scorer)
    finally:
        scorer.model.generation_config.do_sample = True
        sys.modules.pop("vllm", None)


def test_answers_are_those_of_a_plain_greedy_loop(scorer: Any) -> None:
    expected = [greedy(scorer, f"the {question}") for question in QUESTIONS]
    assert len(set(expected)) > 3
    for batch_size in (1, 4, 64):
        assert prepare(scorer, make_task(), batch_size=batch_size).answers(scorer) == expected
    right = [*expected[:6], *["never"] * 3]
    prepared = prepare(scorer, make_task(metrics=["exact_match", "chrf", "bleu"]), right)
    values = prepared.score(scorer)
    assert prepared.metric_names == ("exact_match", "chrf", "bleu")
    assert (prepared.examples, prepared.class_names, values["exact_match"]) == (9, (), pytest.approx(6 / 9))
    assert values["chrf"] == pytest.approx(sacrebleu.corpus_chrf(expected, [right]).score / 100)
    assert values["bleu"] == pytest.approx(sacrebleu.corpus_bleu(expected, [right]).score / 100)
    assert prepared.score(scorer) == values


def test_the_own_settings_of_the_model_come_back(scorer: Any) -> None:
    before = scorer.model.generation_config
    prepare(scorer, make_task()).score(scorer)
    assert scorer.model.generation_config is before
    assert not scorer.model._forward_hooks


def test_answers_end_at_a_stop_text(scorer: Any) -> None:
    whole = prepare(scorer, make_task(max_new_tokens=12)).answers(scorer)
    word = max({one for text in whole for one in text.split()}, key=lambda one: sum(one in text for text in whole))
    cut = prepare(scorer, make_task(max_new_tokens=12, stop=[word])).answers(scorer)
    assert cut == [before_stop(text, (word,)) for text in whole]
    assert cut != whole


def test_a_chat_template_is_used_where_the_task_asks(scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="has no chat template"):
        prepare(scorer, make_task(chat_template=True))
    scorer.tokenizer.chat_template = CHAT
    try:
        plain, chat = (prepare(scorer, make_task(chat_template=asked)) for asked in (False, True))
    finally:
        scorer.tokenizer.chat_template = None
    on = scorer.tokenizer.convert_tokens_to_ids("on")
    assert [one[-1] for one in chat.prompts] == [on] * 9
    assert plain.prompts[0] == [2, *chat.prompts[0][:-1]]  # with the first token, which the chat template has not


def test_several_references_and_a_sample(scorer: Any) -> None:
    first = greedy(scorer, f"the {QUESTIONS[0]}")
    answers = [["never", first], *[["no", "more"]] * 8]
    assert prepare(scorer, make_task(), answers).score(scorer)["exact_match"] >= 1 / 9
    assert prepare(scorer, make_task(dataset={"max_examples": 3}), answers).examples == 3


def test_normalization() -> None:
    assert normalized(" The  cat. ", "none") == " The  cat. "
    assert normalized(" The\n cat. ", "space") == "The cat."
    assert normalized("An APPLE, the pear!", "words") == "apple pear"
    assert score_texts(["exact_match"], ["A Cat."], [["cat"]], "words") == {"exact_match": 1.0}
    assert score_texts(["exact_match"], ["A Cat."], [["cat"]], "space") == {"exact_match": 0.0}
    ragged = score_texts(
        ["chrf", "bleu"], ["the cat sat on the mat", "dog"], [["the cat sat on the mat"], ["a", "dog"]], "space"
    )
    assert ragged == {"chrf": pytest.approx(1.0), "bleu": pytest.approx(1.0)}


def test_templates() -> None:
    assert filled("{a}{{x}} {b} {a}", {"a": "{b}", "b": 2}) == "{b}{x} 2 {b}"


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ({"prompt": "{questions}"}, ("prompt",), "no column 'questions' for the prompt; did you mean question?"),
        ({"prompt": "why?"}, ("prompt",), "needs a column in braces"),
        ({"prompt": "{question"}, ("prompt",), "needs a column in braces"),
        ({"prompt": "{question.__class__}"}, ("prompt",), "no column 'question.__class__' for the prompt"),
        ({"prompt": None}, ("dataset", "text"), "no text column 'text'"),
        ({"prompt": "{tokens}"}, ("prompt",), "not texts or numbers"),
        ({"dataset": {"label": "reply"}}, ("dataset", "label"), "no label column 'reply'"),
        ({"dataset": {"label": "number"}}, ("dataset", "label"), "not texts or lists of texts"),
    ],
)
def test_columns_are_checked(keys: dict[str, Any], key: Any, message: str) -> None:
    text, number = datasets.Value("string"), datasets.Value("int64")
    columns = {"question": text, "answer": text, "number": number, "tokens": datasets.List(number)}
    found = list(check_columns(make_task(**keys), datasets.Features(columns)))
    assert [place for place, _ in found] == [key]
    assert message in found[0][1].message


@pytest.mark.parametrize(
    ("keys", "key", "message"),
    [
        ({"metrics": ["accuracy"]}, ("metrics",), "generation has no metric 'accuracy'"),
        ({"metrics": ["rouge"]}, ("metrics",), "generation has no metric 'rouge'"),
        ({"engine": "vllm"}, ("engine",), "needs the package vllm, which is not installed"),
    ],
)
def test_keys_are_checked(keys: dict[str, Any], key: Any, message: str) -> None:
    found = list(check_language_task(make_task(**keys)))
    assert [place for place, _ in found] == [key]
    assert message in found[0][1].message


def test_rows_that_do_not_fit_are_told(scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="row 1 has no text in column 'answer'"):
        prepare(scorer, make_task(), ["cat", None])
    with pytest.raises(EvaluationError, match=r"the prompt of row 0 has .* the model has room for 1"):
        prepare(scorer, make_task(max_new_tokens=31))


def test_outputs_that_are_not_finite_are_told(scorer: Any) -> None:
    prepared, weight = prepare(scorer, make_task()), scorer.model.model.norm.weight
    before = weight.clone()
    with torch.no_grad():
        weight[0] = torch.nan
    try:
        with pytest.raises(EvaluationError, match="not finite"):
            prepared.score(scorer)
    finally:
        with torch.no_grad():
            weight.copy_(before)
