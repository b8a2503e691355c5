"""Tasks of lm-evaluation-harness that a recipe defines, on tiny Llama models."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import hubmerge
from hubmerge.errors import EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.harness_checks import check_language_task
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import with_dataset
from tests.evaluation.small_text import WORDS, opened, save_model, save_tokenizer, sentences

KIND = task_kind_named("lm-eval")
QUESTIONS = sentences(12, seed=1)
ROWS: dict[str, Any] = {
    "question": QUESTIONS,
    "choices": [["cat", "dog bird"] if number % 2 else ["sun", "tree"] for number in range(12)],
    "answer": [number % 2 for number in range(12)],
    "text": sentences(12, seed=2),
    "word": [WORDS[number] for number in range(12)],
}
CHOICE = {
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
}
ROLLING = {"test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
GENERATE = {
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "word",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
}


def make_task(definition: Any, **keys: Any) -> Task:
    values = {"name": "mine", "kind": "lm-eval", "dataset": {"path": "me/questions"}, "task": definition, **keys}
    return Task.model_validate_json(json.dumps(with_dataset(values)))


class Rows:
    """Reader of splits, which remembers what was asked for."""

    def __init__(self, rows: Any = ROWS) -> None:
        self.rows = rows
        self.asked: list[tuple[str, str]] = []

    def __call__(self, source: DatasetReference) -> datasets.Dataset:
        self.asked.append((source.path, source.split))
        return datasets.Dataset.from_dict(self.rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("llama")
    for seed, name in enumerate(("base", "other")):
        save_model(root / name, "LlamaForCausalLM", seed, max_position_embeddings=64, tie_word_embeddings=False)
        save_tokenizer(root / name, around=False)
    return root


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Any:
    return KIND.open_scorer(folder / "base", opened(folder / "base"), identity="0" * 40)


def prepare(task: Task, scorer: Any, rows: Any = None) -> Any:
    return KIND.prepare(task, rows or Rows(), scorer, Path(), dataset_commit=None, batch_size=4)


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


CODE = "needs code, and a recipe cannot bring code"
MISTAKES: list[tuple[dict[str, Any], tuple[Any, ...], str]] = [
    ({"process_docs": "utils.process"}, ("task", "process_docs"), CODE),
    ({"class": "utils.Task"}, ("task", "class"), CODE),
    ({"custom_dataset": "utils.load"}, ("task", "custom_dataset"), CODE),
    ({"unsafe_code": True}, ("task", "unsafe_code"), CODE),
    ({"process_results": "utils.results"}, ("task", "process_results"), CODE),
    ({"include": "other.yaml"}, ("task", "include"), "names another file"),
    ({"use_prompt": "promptsource:x"}, ("task", "use_prompt"), "names another file"),
    ({"group": "x"}, ("task", "group"), "a group cannot be defined"),
    ({"dataset_kwargs": {"trust_remote_code": True}}, ("task", "dataset_kwargs"), "only its commit is pinned"),
    ({"dataset_path": "you/others"}, ("task", "dataset_path"), "the definition has the dataset path 'you/others'"),
    ({"doc_to_txt": "x"}, ("task", "doc_to_txt"), "did you mean doc_to_text?"),
    ({"output_type": "choice"}, ("task", "output_type"), "unknown output_type 'choice'"),
    ({"repeats": 1000}, ("task", "repeats"), "from 1 to 64"),
    ({"generation_kwargs": {"custom_generate": "me/code"}}, ("task", "generation_kwargs", "custom_generate"), "no key"),
    ({"generation_kwargs": {"max_gen_toks": 10**9}}, ("task", "generation_kwargs", "max_gen_toks"), "whole number"),
    ({"fewshot_config": {"process_docs": "x"}}, ("task", "fewshot_config", "process_docs"), "no key 'process_docs'"),
    ({"fewshot_config": {"sampler": "x"}}, ("task", "fewshot_config", "sampler"), "unknown sampler 'x'"),
    ({"metric_list": [{"metric": "accc"}]}, ("task", "metric_list", 0, "metric"), "did you mean acc?"),
    ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, ("task", "metric_list", 0, "hf_evaluate"), "is code"),
    (
        {"filter_list": [{"name": "x", "filter": [{"function": "custom"}]}]},
        *(("task", "filter_list", 0, "filter"), "no filter 'custom'"),
    ),
    ({"metric_list": {"metric": "acc"}}, ("task", "metric_list"), "expected a list"),
    ({"metric_list": []}, ("task", "metric_list"), "expected a list"),
    ({"filter_list": {"name": "x", "filter": [{"function": "map"}]}}, ("task", "filter_list"), "expected a list"),
    (
        {"filter_list": [{"name": "x", "filter": [{"function": {"a": 1}}]}]},
        *(("task", "filter_list", 0, "filter"), "no filter {'a': 1}"),
    ),
    ({"fewshot_config": {"sampler": ["x"]}}, ("task", "fewshot_config", "sampler"), "unknown sampler ['x']"),
    ({"test_split": None}, ("task",), "no split to score"),
    ({"test_split": "train"}, ("dataset",), "has the split 'train', the recipe 'test'"),
]


@pytest.mark.parametrize(("changes", "key", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_definitions_with_mistakes_are_refused(changes: dict[str, Any], key: Any, message: str) -> None:
    found = list(check_language_task(make_task({**CHOICE, **changes})))
    assert [place for place, _ in found] == [key]
    assert message in found[0][1].message


@pytest.mark.parametrize(
    "changes",
    [
        {"generation_kwargs": {"custom_generate": "me/code", "trust_remote_code": True}},
        {"metric_list": [{"metric": "me/metric", "hf_evaluate": True}]},
        {"include": "/etc/passwd"},
    ],
)
def test_a_definition_that_nobody_checked_is_refused_too(changes: dict[str, Any], scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="task mine: "):
        prepare(make_task({**GENERATE, **changes}), scorer)


def test_a_good_definition_has_no_mistakes() -> None:
    for definition in (CHOICE, ROLLING, GENERATE):
        assert not list(check_language_task(make_task(definition)))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["acc_norm"], None),
        (["accuracy"], "no metric 'accuracy'"),
        (["acc_nrm"], "no metric 'acc_nrm'; did you mean acc_norm?"),
        (["bits_per_byte"], "needs a metric of which more is better"),
    ],
)
def test_metrics_are_checked(metrics: list[str], message: str | None) -> None:
    definition = ROLLING if metrics == ["bits_per_byte"] else CHOICE
    found = list(check_language_task(make_task(definition, metrics=metrics)))
    assert [key for key, _ in found] == ([("metrics",)] if message else [])
    assert message is None or message in found[0][1].message


def test_rows_that_do_not_fit_are_told(scorer: Any) -> None:
    with pytest.raises(EvaluationError, match="lm-evaluation-harness fails: UndefinedError: 'question' is undefined"):
        prepare(make_task(CHOICE), scorer, Rows({"answer": [0], "choices": [["a", "b"]]}))


def test_an_engine_that_is_not_installed_is_told() -> None:
    found = list(check_language_task(make_task(CHOICE, engine="vllm")))
    assert [key for key, _ in found] == [("engine",)]
    assert "needs the package vllm, which is not installed" in found[0][1].message


def test_a_package_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.evaluation.harness_index.PACKAGE", "lm_eval_absent")
    found = list(check_language_task(make_task("arc_easy")))
    assert [key for key, _ in found] == [("task",)]
    assert "needs the package lm-eval, which is not installed" in found[0][1].message
    assert found[0][1].hint == "pip install 'hubmerge[eval]'"


def test_the_package_is_imported_when_a_task_needs_it() -> None:
    imported = re.compile(r"^\s*(?:import|from) (?:lm_eval|sacrebleu|vllm)\b", re.MULTILINE)
    files = [*Path(hubmerge.__file__).parent.rglob("*.py")]
    assert [file for file in files if imported.search(file.read_text(encoding="utf-8"))] == []
