"""Mistakes in the sections `evaluate` and `publish` of recipes, with place, key and message of the error."""

from __future__ import annotations

import pytest

from hubmerge.stream.catalog import installed_catalog
from merge_recipes import RecipeError, parse_recipe
from tests.merge_recipes.samples import RECIPE, Mistake, check_mistake

DATASET = "{path: tanganke/sun397, split: test, image: image, label: label}"
PROMPTS = '["a photo of a {}."]'
KIND = "kind: zero-shot-image-classification"
TASK = "      metrics: [accuracy]\n"
REPO = "repo: me/clip-vit-base-patch32-8-tasks"

CASES: dict[str, Mistake] = {
    "unknown kind": (KIND, KIND.replace("image", "imag"), 12, 13, "evaluate.tasks[0].kind", "did you mean zero-shot-"),
    "task of an unknown entry": (
        TASK,
        TASK + "      model: clip-vit-base-patch32_sun39\n",
        *(16, 14, "evaluate.tasks[0].model", "did you mean clip-vit-base-patch32_sun397?"),
    ),
    "task names repeat": (
        TASK,
        f"{TASK}    - {{name: sun397, {KIND}, dataset: {{path: a/b}}}}\n",
        *(16, 14, "evaluate.tasks[1].name", "taken by the task in line 11"),
    ),
    "template without braces": (PROMPTS, '["a {}", "a photo"]', 14, 25, "evaluate.tasks[0].prompts[1]", "expected {}"),
    "template with a name": (PROMPTS, '["a {label} {}"]', 14, 17, "evaluate.tasks[0].prompts[0]", "no other braces"),
    "templates a text": (
        PROMPTS,
        '"a {}"',
        14,
        16,
        "evaluate.tasks[0].prompts",
        'expected a list, got the text "a {}"',
    ),
    "no templates": (PROMPTS, "[]", 14, 16, "evaluate.tasks[0].prompts", "the list is empty"),
    "class names false": (
        TASK,
        TASK + "      class_names: [yes, no]\n",
        16,
        21,
        "evaluate.tasks[0].class_names[0]",
        "yes",
    ),
    "dataset with @": (DATASET, "{path: a/b@main}", 13, 23, "evaluate.tasks[0].dataset.path", "no @revision"),
    "dataset revision a number": (
        DATASET,
        "{path: a/b, revision: 1234567}",
        *(13, 38, "evaluate.tasks[0].dataset.revision", "expected text, got the number 1234567"),
    ),
    "dataset revision like a float": (
        DATASET,
        "{path: a/b, revision: 12e4567}",
        *(13, 38, "evaluate.tasks[0].dataset.revision", "the number 12e4567 is too large"),
    ),
    "dataset local with revision": (
        DATASET,
        "{path: ./b, revision: v1}",
        *(13, 16, "evaluate.tasks[0].dataset", "a local dataset has no revision"),
    ),
    "seed of no sample": (
        DATASET,
        "{path: a/b, max_examples: 3, sample: first, seed: 1}",
        *(13, 60, "evaluate.tasks[0].dataset.seed", "a seed has no effect with `sample: first`"),
    ),
    "sample": (
        DATASET,
        "{path: a/b, sample: balance}",
        13,
        36,
        "evaluate.tasks[0].dataset.sample",
        "did you mean balanced?",
    ),
    "max_examples": (DATASET, "{path: a/b, max_examples: 0}", 13, 42, "evaluate.tasks[0].dataset.max_examples", ">= 1"),
    "cast to an unknown type": (
        DATASET,
        "{path: a/b, cast: {image: picture}}",
        *(13, 42, "evaluate.tasks[0].dataset.cast.image", "expected one of: bool, float16"),
    ),
    "cast to numbers": (
        DATASET,
        "{path: a/b, cast: {label: [1]}}",
        *(13, 43, "evaluate.tasks[0].dataset.cast.label[0]", "expected text, got the number 1"),
    ),
    "cast to a class twice": (
        DATASET,
        "{path: a/b, cast: {label: [a, b, a]}}",
        *(13, 42, "evaluate.tasks[0].dataset.cast.label", "the class 'a' is in the list twice"),
    ),
    "publish without owner": (REPO, "repo: clip", 17, 9, "publish.repo", "expected owner/name"),
    "publish over an input": (
        REPO,
        "repo: OpenAI/clip-vit-base-patch32",
        17,
        9,
        "publish.repo",
        "is an input of the merge",
    ),
    "shard size": (REPO, f"{REPO}\n  max_shard_size: 5 gigs", 18, 19, "publish.max_shard_size", "is not a size"),
    "shard size a number": (REPO, f"{REPO}\n  max_shard_size: 5", 18, 19, "publish.max_shard_size", "got the number 5"),
    "private as text": (REPO, f"{REPO}\n  private: maybe", 18, 12, "publish.private", "expected true or false"),
    "sign a path": (REPO, f"{REPO}\n  sign: ./k.pem", 18, 9, "publish.sign", "expected keyless, or the file of a key"),
    "sign a list": (REPO, f"{REPO}\n  sign: [keyless]", 18, 9, "publish.sign", "expected a mapping, got a list"),
    "sign without key": (REPO, f"{REPO}\n  sign: {{}}", 18, 9, "publish.sign.key", "this key is required"),
    "sign with an empty key": (REPO, f"{REPO}\n  sign: {{key: }}", 18, 14, "publish.sign.key", "got nothing"),
    "sign misspelt": (REPO, f"{REPO}\n  sign: {{kye: a}}", 18, 10, "publish.sign.kye", "did you mean key?"),
    "keyless as a file": (
        REPO,
        f"{REPO}\n  sign: {{key: keyless}}",
        18,
        9,
        "publish.sign",
        "keyless is not the file of a key",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_reported_at_its_place(name: str) -> None:
    check_mistake(CASES[name], alone=name != "class names false")


@pytest.mark.parametrize(
    ("keys", "place", "message"),
    [
        ("task: [arc]", "evaluate.tasks[0].task", "expected text, got a list"),
        ("task: 3", "evaluate.tasks[0].task", "expected text, got the number 3"),
        ("task: arc, limit: 0", "evaluate.tasks[0].limit", "expected a number >= 1, got the number 0"),
    ],
)
def test_a_mistake_in_a_task_of_a_language_model_is_one_problem(keys: str, place: str, message: str) -> None:
    task = f"evaluate: {{tasks: [{{name: x, kind: lm-eval, dataset: {{path: a/b}}, {keys}}}]}}"
    text = RECIPE[: RECIPE.index("evaluate:")].replace("projection", "opcm") + task
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, catalog=installed_catalog())
    assert [(problem.key, problem.message) for problem in caught.value.problems] == [(place, message)]
