"""Tasks of lm-evaluation-harness, run on the merged model in this process.

The harness writes the prompts, asks the model and computes the metrics. The data are those of the pinned commit: what
a task would download is read through hubmerge instead.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from hubmerge.errors import EvaluationError, HubmergeError
from hubmerge.evaluation.classes import check_finite
from hubmerge.evaluation.engines import VLLM, check_chat_template, check_engine, saved_model, vllm_options
from hubmerge.evaluation.harness_definition import check_definition
from hubmerge.evaluation.harness_index import HarnessTask, find_harness_task
from hubmerge.evaluation.harness_metrics import MetricChoice, choose_metrics, metric_names, values_of
from hubmerge.evaluation.harness_quiet import (
    one_process,
    quiet,
    reading_with,
    replaced,
    sandboxed,
    seeded,
    without_hub_metrics,
)
from hubmerge.evaluation.harness_sources import dataset_problems
from hubmerge.evaluation.metrics import MetricLoader
from hubmerge.evaluation.task_keys import task_place
from hubmerge.evaluation.text_model import CausalKind, TextScorer
from hubmerge.report.report import MetricValue
from merge_recipes import DatasetReference, Task

ReadRows = Callable[[DatasetReference], datasets.Dataset]
"""Reader of the rows of a split at the pinned commit."""

RESAMPLES = 200
"""Number of resamples for standard errors of metrics that have no formula for them."""


class _Splits(dict[str, Any]):
    """The splits of a dataset, each read when the harness asks for it."""

    def __init__(self, read: ReadRows, source: DatasetReference) -> None:
        super().__init__()
        self._read, self._source = read, source

    def __missing__(self, split: str) -> datasets.Dataset:
        rows = self._read(self._source.model_copy(update={"split": split}))
        self[split] = rows
        return rows


@dataclass(frozen=True)
class PreparedHarnessTask:
    """Task with the harness's own task objects, which have read their data."""

    name: str
    examples: int
    place: str
    found: HarnessTask
    built: Any  # tasks and groups, as the task manager returns them
    metrics: MetricChoice
    task: Task
    batch_size: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Empty: the harness keeps its classes to itself."""
        return ()

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metrics that are recorded; the first one fills the accuracy matrix."""
        return self.metrics.names

    def score(self, scorer: TextScorer) -> dict[str, MetricValue]:
        """Return the metrics of the task, with their standard errors, for the model in the scorer.

        Raises:
            EvaluationError: the model's outputs are not finite, or the harness fails.
        """
        with _harness(self.place), seeded(self.task.seed), one_process(), self._model(scorer) as model:
            for one in self.built["tasks"].values():
                _set_fewshot(one, self.task)
            evaluator: Any = importlib.import_module("lm_eval.evaluator")
            results = evaluator.evaluate(
                lm=model,
                task_dict=self.built,
                limit=self.task.dataset.max_examples,
                bootstrap_iters=RESAMPLES,
                log_samples=False,
                apply_chat_template=self.task.chat_template,
                fewshot_as_multiturn=self.task.chat_template,
            )
        values: dict[str, MetricValue] = values_of(self.metrics, results["results"], self.found)
        return values

    @contextmanager
    def _model(self, scorer: TextScorer) -> Iterator[Any]:
        """Give the model in the scorer the interface of the harness."""
        if self.task.engine == VLLM:
            with saved_model(scorer) as folder:
                library: Any = importlib.import_module("lm_eval.models.vllm_causallms")
                options = vllm_options(scorer, self.task.seed)
                model = library.VLLM(pretrained=str(folder), batch_size=self.batch_size, **options)
                yield model
                model.model = None  # frees the device, also while the wrapper is still referred to
            return
        with ExitStack() as stack:
            # The harness ties the weights again; checkpoints may have a head of their own.
            stack.enter_context(replaced(scorer.model, "tie_weights", lambda *_, **__: None))
            hook = scorer.model.register_forward_hook(lambda _, __, output: check_finite(output.logits, scorer.label))
            stack.callback(hook.remove)
            library = importlib.import_module("lm_eval.models.huggingface")
            yield library.HFLM(
                pretrained=scorer.model,
                tokenizer=scorer.own_tokenizer(),
                backend="causal",
                batch_size=self.batch_size,
                max_length=scorer.max_tokens,
                trust_remote_code=False,
            )


class HarnessKind(CausalKind):
    """Task kind `lm-eval`, for base models that generate text."""

    name = "lm-eval"
    reads_splits = True
    """True: `prepare` receives a function that reads the rows of a split, in place of the rows."""

    def prepare(
        self,
        task: Task,
        rows: ReadRows,
        scorer: TextScorer,
        cache_folder: Path,  # noqa: ARG002
        *,
        dataset_commit: str | None,  # noqa: ARG002
        batch_size: int = 64,
        load_metric: MetricLoader | None = None,  # noqa: ARG002
    ) -> PreparedHarnessTask:
        """Let the harness build the task and read its data.

        Raises:
            EvaluationError: the task is unknown, cannot be built, or reads other data than the recipe pins.
        """
        check_chat_template(task, scorer)
        found = _find_checked(task)
        metrics, place = choose_metrics(task, found), task_place(task)

        with _harness(place), seeded(task.seed), reading_with(_reader(task, rows, found)):
            built = found.manager.load([*found.spec])
            counts = [len(one.eval_docs) for one in built["tasks"].values()]
        _check_counts(counts, found, place)
        most = task.dataset.max_examples
        return PreparedHarnessTask(
            name=task.name,
            examples=sum(counts) if most is None else sum(min(one, most) for one in counts),
            place=place,
            found=found,
            built=built,
            metrics=metrics,
            task=task,
            batch_size=task.batch_size or batch_size,
        )


def _reader(task: Task, rows: ReadRows, found: HarnessTask) -> Callable[..., _Splits]:
    """Return a function that stands for `datasets.load_dataset` and reads the data that the recipe pins."""

    def read(path: str | None = None, name: str | None = None, **_: Any) -> _Splits:
        if not found.is_installed:
            return _Splits(rows, task.dataset.model_copy(update={"name": name or task.dataset.name}))
        for source in task.dataset.sources:
            if path == source.written_path:
                return _Splits(rows, source.model_copy(update={"name": name}))
        raise EvaluationError(f"{task_place(task)}: the harness asks for the dataset {path}, which is not pinned")

    return read


def _find_checked(task: Task) -> HarnessTask:
    """Return the task of the harness after checking its engine, definition and data."""
    check_engine(task)
    found = find_harness_task(task)
    if isinstance(task.task, dict):  # also of recipes that nobody checked, as those of published streams
        for _, problem in check_definition(task, task.task, metric_names()):
            raise problem
    for problem in dataset_problems(task, found):
        raise problem
    return found


def _check_counts(counts: Sequence[int], found: HarnessTask, place: str) -> None:
    """Check that every task was built and has examples."""
    if len(counts) != len(found.leaves):
        raise EvaluationError(f"{place}: the harness builds {len(counts)} tasks of {len(found.leaves)}")
    if not all(counts):
        raise EvaluationError(f"{place}: no examples", hint="choose a split with examples")


def _set_fewshot(built: Any, task: Task) -> None:
    """Set the number of examples in the prompt, and their seed. A task that is defined for none keeps none."""
    own = built.get_config("num_fewshot")
    if own is None or (task.num_fewshot is not None and own != 0):
        built.set_config(key="num_fewshot", value=task.num_fewshot or 0)
    built.set_fewshot_seed(seed=task.seed)


@contextmanager
def _harness(place: str) -> Iterator[None]:
    """Run the harness quietly, with templates in a sandbox; turn its exceptions into errors for users.

    Raises:
        EvaluationError: the harness fails.
    """
    try:
        with quiet(), sandboxed(), without_hub_metrics():
            yield
    except HubmergeError:
        raise
    except Exception as error:  # tasks raise whatever their functions and templates raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EvaluationError(
            f"{place}: lm-evaluation-harness fails: {type(error).__name__}: {first}",
            hint="check the definition of the task against its dataset",
        ) from error
