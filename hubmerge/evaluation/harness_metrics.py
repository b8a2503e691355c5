"""Metrics of a task of lm-evaluation-harness: their names, which of them is the score, and their values in results.

The harness names a value `metric,filter`. Here it is the metric alone if the filter is `none`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_index import HarnessTask, members_of
from hubmerge.evaluation.harness_quiet import quiet
from hubmerge.report.report import MetricValue
from hubmerge.support.text import listed
from merge_recipes import Task
from merge_recipes.errors import did_you_mean
from merge_recipes.language_task import HARNESS_KIND

PROBABILITY, BITS = "byte_probability", "bits_per_byte"
"""Score of tasks that only have perplexities: 2^-bits_per_byte, the geometric mean of the bytes' probabilities."""

IN_PERCENT = frozenset({"bleu", "chrf", "chrf++", "ter"})
"""Metrics whose values the harness gives in percent."""

MAX_SHOWN_MEMBERS = 60
"""Members of a group that a message lists at most."""

MEAN = "mean_score"
"""Score of a group whose tasks have no common metric: the mean of the scores of its members."""

_SHARES = frozenset({"acc", "acc_norm", "acc_mutual_info", "acc_bytes", "accuracy", "exact_match", "em", "f1", "mcc"})
_OTHER_SHARES = frozenset({"bleu", "chrf", "chrf++", "f1_abstractive", "pearsonr", PROBABILITY})


@dataclass(frozen=True)
class MetricChoice:
    """Metrics of a task that are recorded.

    Attributes:
        names: the metrics; the first one fills the accuracy matrix.
        keys: the key of each in the results of the harness.
        members: the members of a group whose mean is taken, each with its score.
    """

    names: tuple[str, ...]
    keys: Mapping[str, str]
    members: tuple[tuple[HarnessTask, MetricChoice], ...] = ()


def metric_names() -> frozenset[str]:
    """Return the names of the harness's own metrics."""
    return frozenset(_registry().metric_registry)


def choose_metrics(task: Task, found: HarnessTask) -> MetricChoice:
    """Return the metrics of a task.

    Without metrics in the recipe, it is the first one of which more is better; of a group, one that all its tasks have,
    else the mean of its members. A metric that a recipe names is taken with any filter if there is only one.

    Raises:
        EvaluationError: the task has no metric of a name, or none of which more is better.
    """
    known = _known(found)
    members = () if any(known.values()) else _members(found)
    known = {MEAN: True, **known} if members else known
    default = next((_short(key) for key, better in known.items() if better), "")
    known = {**_aggregated(found), **known}
    shown = {_short(key): key for key in known}
    asks = "metrics" in task.model_fields_set
    names = [] if asks else [default]
    for asked in task.metrics if asks else ():
        matches = [asked] if asked in shown else [one for one in shown if one.split(",")[0] == asked]
        if len(matches) != 1:
            several = f"several values of the metric {asked!r}: {', '.join(matches)}"
            problem = several if matches else f"no metric {asked!r}{did_you_mean(asked, shown)}"
            expected = f"set `metrics` to some of {', '.join(shown)}"
            raise EvaluationError(f"task {task.name}: {found.name} has {problem}", hint=expected)
        names.append(matches[0])
    main = next((one for one in names if one and known[shown[one]]), None)
    if main is None:
        better = [one for one, key in shown.items() if known[key]]
        has = f"it has {', '.join(shown) or 'none'}"
        if found.group is not None:
            has = "its tasks have no common one" + (f"; some have {', '.join(shown)}" if shown else "")
        raise EvaluationError(
            f"task {task.name}: {found.name} needs a metric of which more is better; {has}",
            hint=f"set `metrics: [{better[0]}]`" if better else _other_task(found),
        )
    ordered = tuple(dict.fromkeys((main, *names)))
    return MetricChoice(ordered, {one: shown[one] for one in ordered}, members)


def _other_task(found: HarnessTask) -> str:
    if found.group is None:
        return "choose another task"
    first, *others = (one.name for one in members_of(found))
    hint = f"write one task for each member: `- {{name: {first}, kind: {HARNESS_KIND}, task: {first}}}`"
    return f"{hint}, and the same for {listed(others, MAX_SHOWN_MEMBERS)}" if others else hint


def _known(found: HarnessTask) -> dict[str, bool]:
    """Return the metrics that all tasks have, with True if more is better."""
    known = _common([_metrics_of(leaf) for leaf in found.leaves.values()])
    return {PROBABILITY: True, **known} if f"{BITS},none" in known and not any(known.values()) else known


def _aggregated(found: HarnessTask) -> dict[str, bool]:
    """Return the metrics that the harness aggregates over those tasks of a group that have them."""
    metrics: dict[str, bool] = {}
    for leaf in found.leaves.values():
        metrics |= _metrics_of(leaf)
    listed_metrics = (found.group or {}).get("aggregate_metric_list") or ()
    names = {_name(one["metric"]): one.get("filter_list") for one in listed_metrics if isinstance(one, dict)}
    aggregated = {}
    for key, better in metrics.items():
        name, _, chosen = key.partition(",")
        filters = names.get(name)
        if name in names and (filters is None or chosen in ([filters] if isinstance(filters, str) else filters)):
            aggregated[key] = better
    return aggregated


def _members(found: HarnessTask) -> tuple[tuple[HarnessTask, MetricChoice], ...]:
    """Return the members of a group with their scores; none if the score of a member is not a share."""
    chosen = [(one, _share_of(one)) for one in members_of(found)] if found.group is not None else []
    return tuple((one, choice) for one, choice in chosen if choice) if all(choice for _, choice in chosen) else ()


def _share_of(found: HarnessTask) -> MetricChoice | None:
    """Return the first metric of which more is better and 1 is the most; None if there is none."""
    for key, better in _known(found).items():
        name = key.split(",")[0]
        if better and (name in _SHARES | _OTHER_SHARES or name.endswith("_acc")):
            return MetricChoice((_short(key),), {_short(key): key})
    members = _members(found)
    return MetricChoice((MEAN,), {MEAN: MEAN}, members) if members else None


def values_of(choice: MetricChoice, results: Mapping[str, Mapping[str, Any]], found: HarnessTask) -> Any:
    """Return the values of the metrics, and their standard errors where the harness gives them.

    The value of a group is the one that its definition aggregates, else the mean of its tasks, or of its members if the
    tasks have no common metric. The score of each of its tasks is added as `metric/task`.

    Raises:
        EvaluationError: the score is missing or not finite.
    """
    values: dict[str, MetricValue] = {}
    leaves = [results.get(leaf, {}) for leaf in found.leaves]
    whole = results.get(found.name, {}) if found.group is not None else leaves[0]
    for name, key in choice.keys.items():
        value = _mean(choice, results) if key == MEAN else _value(whole, key)
        if value is None and found.group is not None:
            parts = [_value(one, key) for one in leaves]
            value = None if None in parts else math.fsum(map(float, filter(None, parts))) / len(parts)
        if value is not None:
            values[name] = value
        error = _value(whole, _error_key(key))
        if error is not None:
            values[f"{name}_stderr"] = error
    main = choice.names[0]
    if main not in values:
        raise EvaluationError(f"{found.name}: lm-evaluation-harness returned no finite value of {main}")
    if main == MEAN:
        values |= _parts(choice, results)
    elif found.group is not None:
        for leaf, one in zip(found.leaves, leaves, strict=True):
            value = _value(one, choice.keys[main])
            values |= {} if value is None else {f"{main}/{leaf}": value}
    return values


def _mean(choice: MetricChoice, results: Mapping[str, Mapping[str, Any]]) -> float:
    scores = [values_of(own, results, member)[own.names[0]] for member, own in choice.members]
    return math.fsum(map(float, scores)) / len(scores)


def _parts(choice: MetricChoice, results: Mapping[str, Mapping[str, Any]]) -> dict[str, MetricValue]:
    """Return the score of each member, and of its tasks if it is a group, as `metric/name`."""
    parts: dict[str, MetricValue] = {}
    for member, own in choice.members:
        found = values_of(own, results, member)
        parts[f"{own.names[0]}/{member.name}"] = found[own.names[0]]
        parts |= {key: value for key, value in found.items() if "/" in key}
    return parts


def _value(results: Mapping[str, Any], key: str) -> float | None:
    if key == PROBABILITY:
        bits = _value(results, f"{BITS},none")
        return None if bits is None else 2.0**-bits
    value = results.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    metric = key.split(",")[0].removesuffix("_stderr")
    return float(value) / 100 if metric in IN_PERCENT else float(value)


def _error_key(key: str) -> str:
    metric, _, chosen = key.partition(",")
    return f"{metric}_stderr,{chosen}"


def _short(key: str) -> str:
    return key.removesuffix(",none")


def _common(tables: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """Return the metrics that all tasks have, in the order of the first one."""
    first, *others = tables
    return {key: better for key, better in first.items() if all(key in one for one in others)}


def _metrics_of(leaf: Mapping[str, Any]) -> dict[str, bool]:
    """Return the metrics of one task by their keys in results, with True if more is better."""
    registry = _registry()
    listed = leaf.get("metric_list")
    if listed is None:
        output = leaf.get("output_type", "generate_until")
        listed = [{"metric": name} for name in registry.DEFAULT_METRIC_REGISTRY.get(output, ())]
    filters = [one["name"] for one in leaf.get("filter_list") or [{"name": "none"}]]
    found: dict[str, bool] = {}
    for item in listed:
        name = _name(item["metric"])
        better = item.get("higher_is_better")
        if better is None:
            better = name in registry.higher_is_better_registry and registry.higher_is_better_registry.get(name)
        found |= {f"{name},{chosen}": bool(better) for chosen in filters}
    return found


def _name(metric: object) -> str:
    """Return the name of a metric; a function is named by its file and its name."""
    return str(metric).rpartition("/")[2].rpartition(".")[2]


def _registry() -> Any:
    with quiet():
        importlib.import_module("lm_eval.api.metrics")
        return importlib.import_module("lm_eval.api.registry")
