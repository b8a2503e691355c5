"""Generation: the model continues a prompt greedily, and its answers are compared with reference texts.

Each token is the most probable one. An answer ends at the end token, at a stop text, or after `max_new_tokens`. Batches
are padded on the left. Sampling options of the model's own generation_config.json are not used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.classes import check_finite, dataset_errors
from hubmerge.evaluation.engines import VLLM, check_chat_template, check_engine, saved_model, vllm_model
from hubmerge.evaluation.harness_quiet import replaced
from hubmerge.evaluation.metrics import MetricLoader
from hubmerge.evaluation.prompts import read_prompts
from hubmerge.evaluation.sampling import choose_rows
from hubmerge.evaluation.task_keys import check_no_classes, check_prompts, task_place
from hubmerge.evaluation.text_model import CausalKind, TextScorer
from hubmerge.evaluation.text_scores import check_generation_metrics, score_texts
from hubmerge.evaluation.texts import Tokens, batches, padded
from hubmerge.report.report import MetricValue
from merge_recipes import Task

CHECK_EVERY = 4
"""Number of tokens after which stop texts are looked for."""


@dataclass(frozen=True)
class PreparedGeneration:
    """Task with the tokens of its prompts and its reference texts."""

    name: str
    task: Task
    prompts: tuple[Tokens, ...]
    references: tuple[tuple[str, ...], ...]
    batch_size: int = 64

    @property
    def examples(self) -> int:
        """Number of scored prompts."""
        return len(self.prompts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty: the task has no classes."""
        return ()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that are recorded; the first one fills the accuracy matrix."""
        return self.task.metrics

    def score(self, scorer: TextScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        return {**score_texts(self.metric_names, self.answers(scorer), self.references, self.task.normalize)}

    def answers(self, scorer: TextScorer) -> list[str]:
        """Return the answer to each prompt.

        Raises:
            EvaluationError: the model's outputs are not finite.
        """
        if self.task.engine == VLLM:
            return self._answers_of_vllm(scorer)
        found = [""] * len(self.prompts)
        with _greedy(scorer, self.task.max_new_tokens) as padding:
            for batch in batches(self.prompts, self.batch_size):
                prompts = [self.prompts[number] for number in batch]
                tokens, mask = padded(prompts, padding, scorer.device, left=True)
                stop = StoppingCriteriaList([_AtStop(scorer.tokenizer, self.task.stop, tokens.shape[1])])
                output = scorer.model.generate(input_ids=tokens, attention_mask=mask, stopping_criteria=stop)
                for number, row in zip(batch, output[:, tokens.shape[1] :].tolist(), strict=True):
                    text = scorer.tokenizer.decode(row, skip_special_tokens=True)
                    found[number] = before_stop(text, self.task.stop)
        return found

    def _answers_of_vllm(self, scorer: TextScorer) -> list[str]:
        library: Any = importlib.import_module(VLLM)
        keys = {"temperature": 0.0, "max_tokens": self.task.max_new_tokens, "stop": [*self.task.stop] or None}
        prompts = [{"prompt_token_ids": [*tokens]} for tokens in self.prompts]
        with saved_model(scorer) as folder:
            model = vllm_model(folder, scorer, seed=0)
            outputs = model.generate(prompts, library.SamplingParams(**keys), use_tqdm=False)
            del model
        return [before_stop(one.outputs[0].text, self.task.stop) for one in outputs]


class Generation(CausalKind):
    """Task kind `generation`, for base models that generate text."""

    name = "generation"

    def prepare(
        self,
        task: Task,
        rows: datasets.Dataset,
        scorer: TextScorer,
        cache_folder: Path,  # noqa: ARG002
        *,
        dataset_commit: str | None,
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,  # noqa: ARG002
    ) -> PreparedGeneration:
        """Read the prompts and the reference texts.

        Raises:
            EvaluationError: the task does not fit its dataset or the base model, or a prompt is too long for the model.
        """
        for check in (check_prompts, check_no_classes, check_engine, check_generation_metrics):
            check(task)
        with dataset_errors(task.dataset, dataset_commit):
            chosen = choose_rows(len(rows), task.dataset)
            numbers = list(range(len(rows)) if chosen is None else chosen.tolist())
            prompts, references = read_prompts(task, rows, numbers)
            tokens = _tokens(task, prompts, scorer)
            _check_lengths(task, tokens, numbers, scorer.max_tokens)
        return PreparedGeneration(
            name=task.name,
            task=task,
            prompts=tuple(tokens),
            references=tuple(references),
            batch_size=task.batch_size or batch_size,
        )


def before_stop(text: str, stop: Sequence[str]) -> str:
    """Return a text up to the first stop text in it.

    >>> before_stop("yes. Q: next", ("Q:", "."))
    'yes'
    """
    ends = [place for place in (text.find(one) for one in stop) if place >= 0]
    return text[: min(ends)] if ends else text


def _tokens(task: Task, prompts: Sequence[str], scorer: TextScorer) -> list[Tokens]:
    """Return the tokens of prompts, with the chat template of the tokenizer if the task asks for it.

    Raises:
        EvaluationError: the tokenizer has no chat template.
    """
    tokenizer = scorer.tokenizer
    if not task.chat_template:
        # An end token after the prompt would end the answer before its first word.
        found: list[Tokens] = tokenizer(list(prompts), add_special_tokens=True, verbose=False)["input_ids"]
        end = tokenizer.eos_token_id
        return [one[:-1] if len(one) > 1 and one[-1] == end else one for one in found]
    check_chat_template(task, scorer)
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    return [*tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


def _check_lengths(task: Task, prompts: Sequence[Tokens], numbers: Sequence[int], most: int) -> None:
    room = most - task.max_new_tokens
    for number, tokens in zip(numbers, prompts, strict=True):
        if not tokens:
            raise EvaluationError(f"{task_place(task)}: the prompt of row {number} has no tokens")
        if len(tokens) > room:
            raise EvaluationError(
                f"{task_place(task)}: the prompt of row {number} has {len(tokens)} tokens, and with max_new_tokens "
                f"{task.max_new_tokens} the model has room for {max(room, 0)}",
                hint="set a smaller `max_new_tokens`, or a shorter `prompt`",
            )


@contextmanager
def _greedy(scorer: TextScorer, most: int) -> Iterator[int]:
    """Let the model in the scorer generate greedily; yield the token for padding."""
    model, own = scorer.model, scorer.model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else scorer.tokenizer.eos_token_id
    first = ends[0] if isinstance(ends, list) else ends
    padding = next((one for one in (scorer.tokenizer.pad_token_id, own.pad_token_id, first) if one is not None), 0)
    plain = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=most, eos_token_id=ends, pad_token_id=padding, use_cache=True
    )
    hook = model.register_forward_hook(lambda _, __, output: check_finite(output.logits, scorer.label))
    try:
        with torch.no_grad(), replaced(model, "generation_config", plain):
            yield int(padding)
    finally:
        hook.remove()


class _AtStop(StoppingCriteria):
    """End of the answers that contain a stop text."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        """Return True for each row that can end."""
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if self._stop and (input_ids.shape[1] - self._start) % CHECK_EVERY == 0:
            texts = self._tokenizer.batch_decode(input_ids[:, self._start :], skip_special_tokens=True)
            ended = [any(one in text for one in self._stop) for text in texts]
            done = torch.tensor(ended, dtype=torch.bool, device=input_ids.device)
        return done
