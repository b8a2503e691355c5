"""Names of kinds of task and metrics that other tools use are answered with the name that recipes have."""

from __future__ import annotations

import pytest

from hubmerge.evaluation import METRIC_NAMES, TASK_KIND_NAMES
from hubmerge.stream.catalog import installed_catalog
from merge_recipes import RecipeError, parse_recipe
from merge_recipes.near_names import KIND_SYNONYMS, METRIC_SYNONYMS
from merge_recipes.notes import notes

RECIPE = """merge_method: opcm
base_model: me/base
models: [{{model: me/a}}]
evaluate:
  tasks:
    - {{name: a, kind: {kind}, metrics: [{metric}], dataset: {{path: me/data}}}}
"""


def message(kind: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(RECIPE.format(kind=kind, metric="accuracy"), catalog=installed_catalog())
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (6, "evaluate.tasks[0].kind")
    return problem.message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Image_Classification", "image-classification"),
        ("zero_shot_image_classification", "zero-shot-image-classification"),
        ("zeroshot", "zero-shot-image-classification"),
        ("zero-shot-image-clasification", "zero-shot-image-classification"),
        ("sentiment-analysis", "text-classification"),
        ("text_classification", "text-classification"),
        ("sequence classification", "text-classification"),
        ("text-generation", "causal-lm"),
        ("causal_lm", "causal-lm"),
        ("perplexity", "causal-lm"),
    ],
)
def test_kinds(written: str, meant: str) -> None:
    assert message(written).endswith(f"; did you mean {meant}?")


def test_a_kind_of_nothing_near_lists_all() -> None:
    for name in TASK_KIND_NAMES:
        assert name in message("speech")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("acc", "accuracy"), ("top5", "top-5"), ("acc@5", "top-5"), ("F1_score", "f1"), ("confusion_matrix", "confusion")],
)
def test_metrics(written: str, meant: str) -> None:
    catalog = installed_catalog()
    loaded = parse_recipe(RECIPE.format(kind="text-classification", metric=f'"{written}"'), catalog=catalog)
    found = [str(note) for note in notes(loaded, catalog)]
    assert any(f"did you mean {meant}?" in note for note in found), found


def test_every_synonym_means_a_name_and_is_none() -> None:
    assert set(KIND_SYNONYMS.values()) <= set(TASK_KIND_NAMES)
    assert set(METRIC_SYNONYMS.values()) <= set(METRIC_NAMES)
    assert not set(KIND_SYNONYMS) & set(TASK_KIND_NAMES)
    assert not set(METRIC_SYNONYMS) & set(METRIC_NAMES)
