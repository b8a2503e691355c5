"""Mistakes in recipes, with the place, the key, the message and the hint of the error.

Mistakes in `evaluate` and `publish` are in test_section_messages.py.
"""

from __future__ import annotations

import pytest

from tests.merge_recipes.samples import RECIPE, Mistake, check_mistake, problems_of, sample, the_problem
from tests.merge_recipes.test_section_messages import CASES as SECTION_CASES
from tests.merge_recipes.test_section_messages import DATASET, PROMPTS, REPO

FIRST = "  - model: tanganke/clip-vit-base-patch32_sun397\n"
SECOND = "  - model: tanganke/clip-vit-base-patch32_stanford-cars@main\n"
ALPHA = "  alpha: 0.5\n"

CASES: dict[str, Mistake] = {
    "misspelt parameter": (ALPHA, "  aplha: 0.5\n", 7, 3, "parameters.aplha", "did you mean alpha?"),
    "misspelt key": ("dtype:", "dtpe:", 8, 1, "dtpe", "unknown key; did you mean dtype?"),
    "misspelt required key": ("merge_method:", "merge_metod:", 1, 1, "merge_metod", "did you mean merge_method?"),
    "misspelt nested key": ("steps: every", "step: every", 18, 3, "publish.step", "did you mean steps?"),
    "key of nothing near": (
        "dtype: float32",
        "zzz: 1",
        8,
        1,
        "zzz",
        "unknown key; expected one of: base_model, chat_template",
    ),
    "unknown method": ("projection", "projction", 1, 15, "merge_method", "did you mean projection?"),
    "method of mergekit": ("projection", "slerp", 1, 15, "merge_method", "mergekit's method slerp is not supported"),
    "alpha too large": (
        ALPHA,
        "  alpha: 1.5\n",
        7,
        10,
        "parameters.alpha",
        "expected a number <= 1.0, got the number 1.5",
    ),
    "alpha too small": (
        ALPHA,
        "  alpha: -1\n",
        7,
        10,
        "parameters.alpha",
        "expected a number >= 0.0, got the number -1",
    ),
    "alpha in quotes": (ALPHA, '  alpha: "0.5"\n', 7, 10, "parameters.alpha", 'expected a number, got the text "0.5"'),
    "alpha true": (ALPHA, "  alpha: yes\n", 7, 10, "parameters.alpha", "got yes, which YAML reads as true"),
    "alpha infinite": (ALPHA, "  alpha: .inf\n", 7, 10, "parameters.alpha", ".inf is not a finite number"),
    "alpha too long": (ALPHA, "  alpha: 1e999\n", 7, 10, "parameters.alpha", "the number 1e999 is too large"),
    "alpha empty": (ALPHA, "  alpha:\n", 7, 9, "parameters.alpha", "got nothing"),
    "alpha a mapping": (ALPHA, "  alpha: {a: 1}\n", 7, 10, "parameters.alpha", "got a mapping"),
    "gradient out of range": (
        ALPHA,
        "  alpha: [0, 0.5, 2]\n",
        7,
        19,
        "parameters.alpha[2]",
        "expected a number <= 1.0",
    ),
    "gradient in a filter out of range": (
        ALPHA,
        "  alpha: [{value: [0, 2]}]\n",
        *(7, 23, "parameters.alpha[0].value[1]", "expected a number <= 1.0"),
    ),
    "gradient of words": (
        ALPHA,
        "  alpha: [{value: [0, a]}]\n",
        7,
        19,
        "parameters.alpha[0].value",
        "a list of numbers",
    ),
    "gradient of true and false": (ALPHA, "  alpha: [true]\n", 7, 11, "parameters.alpha[0]", "expected {value"),
    "gradient where one value is": (
        ALPHA,
        "  normalize: [0, 1]\n",
        *(7, 14, "parameters.normalize", "one value for all tensors"),
    ),
    "gradient against another parameter": (
        ALPHA,
        "  alpha: [0.6, 0.1]\n  floor: 0.4\n",
        7,
        3,
        "parameters",
        "floor is",
    ),
    "no filter list": (ALPHA, "  alpha: []\n", 7, 10, "parameters.alpha", "the list is empty"),
    "filter value out of range": (
        ALPHA,
        "  alpha: [{filter: attn, value: 7}, {value: 0.5}]\n",
        *(7, 33, "parameters.alpha[0].value", "expected a number <= 1.0, got the number 7"),
    ),
    "filter misspelt": (
        ALPHA,
        "  alpha: [{fliter: a, value: 1}]\n",
        7,
        12,
        "parameters.alpha[0].fliter",
        "mean filter?",
    ),
    "filter without value": (ALPHA, "  alpha: [{filter: a}]\n", 7, 11, "parameters.alpha[0].value", "key is required"),
    "filter not text": (ALPHA, "  alpha: [{filter: 3, value: 1}]\n", 7, 20, "parameters.alpha[0].filter", "got 3"),
    "filter item a number": (ALPHA, "  alpha: [{value: 1}, 0.5]\n", 7, 23, "parameters.alpha[1]", "got 0.5"),
    "filter where one value is": (
        ALPHA,
        "  rank_rule: [{value: paper}]\n",
        *(7, 14, "parameters.rank_rule", "one value for all tensors"),
    ),
    "parameter misplaced": (
        FIRST,
        FIRST + "    parameters: {rank_rule: paper}\n",
        *(5, 18, "models[0].parameters.rank_rule", "one value for the whole stream"),
    ),
    "parameter of an entry": (
        FIRST,
        FIRST + "    parameters: {alpha: 2}\n",
        *(5, 25, "models[0].parameters.alpha", "expected a number <= 1.0"),
    ),
    "parameters that do not go together": (ALPHA, ALPHA + "  floor: 0.6\n", 7, 3, "parameters", "floor is larger"),
    "choice misspelt": (ALPHA, "  rank_rule: papr\n", 7, 14, "parameters.rank_rule", "did you mean paper?"),
    "parameter missing": (
        "merge_method: projection",
        "merge_method: scaled",
        7,
        3,
        "parameters.alpha",
        "has no parameter",
    ),
    "base in its own stream": (
        SECOND,
        "  - model: openai/clip-vit-base-patch32@main\n",
        *(5, 12, "models[1].model", "this is the base model"),
    ),
    "stream empty": (FIRST + SECOND, "  []\n", 4, 3, "models", "the list is empty"),
    "entry without model": (
        SECOND,
        "  - name: cars\n",
        5,
        5,
        "models[1].model",
        "this key is required: the checkpoint",
    ),
    "entry a text": (SECOND, "  - a/b\n", 5, 5, "models[1]", 'expected a mapping, got the text "a/b"'),
    "entry names repeat": (
        SECOND,
        SECOND.replace("tanganke", "x").replace("stanford-cars", "sun397"),
        5,
        5,
        "models[1].name",
        "in line 4",
    ),
    "entry name bad": (SECOND, SECOND + "    name: a b\n", 6, 11, "models[1].name", '"a b" is not a name'),
    "entry name false": (SECOND, SECOND + "    name: no\n", 6, 11, "models[1].name", "no, which YAML reads as false"),
    "reference an address": (
        SECOND,
        "  - model: https://huggingface.co/a/b\n",
        *(5, 12, "models[1].model", "is a web address"),
    ),
    "subfolder outside the repo": (SECOND, "  - model: a/b/../c\n", 5, 12, "models[1].model", "is not a folder in a"),
    "reference a number": (SECOND, "  - model: 1234567\n", 5, 12, "models[1].model", "got the number 1234567"),
    "revision empty": (SECOND, "  - model: a/b@\n", 5, 12, "models[1].model", "is not a revision"),
    "local with revision": (
        SECOND,
        "  - model: ./b@main\n",
        5,
        12,
        "models[1].model",
        "a local folder has no revision",
    ),
    "dtype": ("dtype: float32", "dtype: fp32", 8, 8, "dtype", "expected one of: bfloat16, float16, float32, float64"),
    "shuffled without seed": ("dtype: float32", "order: shuffled", 8, 8, "order", "needs a seed"),
    "seed without shuffled": ("dtype: float32", "seed: 3", 8, 1, "seed", "has no effect"),
    "order misspelt": ("dtype: float32", "order: shufled", 8, 8, "order", "did you mean shuffled?"),
    "slices": ("dtype: float32", "slices: []", 8, 9, "slices", "the list is empty"),
    "modules": ("dtype: float32", "modules: {}", 8, 1, "modules", "mergekit's modules are read if there is one"),
    "tokenizer": ("dtype: float32", "tokenizer: {}", 8, 1, "tokenizer", "whose vocabulary cannot change"),
    "tokenizer_source": (
        "dtype: float32",
        "tokenizer_source: union",
        8,
        1,
        "tokenizer_source",
        "projection merges one checkpoint after another here, whose vocabulary cannot change; expected `base`",
    ),
    "chat_template": (
        "dtype: float32",
        "chat_template: chatml-2",
        *(8, 16, "chat_template", "neither the name of a chat template nor one in Jinja; did you mean chatml?"),
    ),
    "layer_range": (SECOND, SECOND + "    layer_range: [0, 3]\n", 6, 5, "models[1].layer_range", "layer ranges"),
    "import path": ("dtype: float32", "_target_: os.system", 8, 1, "_target_", "cannot name code"),
    "duplicate key": ("dtype: float32", "merge_method: x", 8, 1, "merge_method", "already given in line 1"),
    "tag": ("dtype: float32", "dtype: !!python/name:os.system float32", 8, 8, "dtype", "is not allowed"),
    "tab": (ALPHA, "\talpha: 0.5\n", 7, 1, "", "tabs are not allowed"),
    "not YAML": (ALPHA, "  alpha: [0.5\n", 8, 6, "", "the text is not YAML"),
    "alias without anchor": (ALPHA, "  alpha: *share\n", 7, 10, "", "the alias *share has no anchor"),
    "control character": (ALPHA, '  alpha: "\\0"\n', 7, 10, "parameters.alpha", "control character"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_reported_at_its_place(name: str) -> None:
    check_mistake(CASES[name], alone=name != "parameter missing")


def test_the_sample_has_no_mistakes() -> None:
    assert problems_of(RECIPE) == []


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    chosen = ("misspelt parameter", "dtype", "unknown kind", "publish without owner", "entry a text")
    found = problems_of(sample(*((CASES | SECTION_CASES)[name][:2] for name in chosen)))
    assert [problem.line for problem in found] == [5, 7, 8, 12, 17]


def test_a_missing_required_key_is_described() -> None:
    problem = the_problem(sample(("merge_method: projection\n", "")))
    assert problem.key == "merge_method"
    assert problem.message == "this key is required: the name of the merge method, for example opcm"


def test_a_missing_models_is_not_reported_beside_slices() -> None:
    problems = problems_of(sample(("models:", "slices:")))
    assert {problem.key.partition("[")[0] for problem in problems} == {"slices"}


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        (("  alpha: 0.5\n", '  alpha: "0.5"\n'), "write it without quotes: 0.5"),
        (("  alpha: 0.5\n", "  alpha: 0,5\n"), "write it with a point: 0.5"),
        (("  alpha: 0.5\n", '  alpha: "0,5"\n'), "write it with a point, without quotes: 0.5"),
        (
            ("  alpha: 0.5\n", "  alpha: \u201c0.5\u201d\n"),
            "replace the left double quotation mark by its plain form; text from web pages often has it",
        ),
        (
            ("  alpha: 0.5\n", "  alpha: \u22120.5\n"),
            "replace the minus sign by its plain form; text from web pages often has it",
        ),
        (
            ("  alpha: 0.5\n", "  alpha:\u00a00.5\n"),
            "replace the no-break space by its plain form; text from web pages often has it",
        ),
        (("float32", "1234"), None),
        ((REPO, "repo: 1234567"), 'put it in quotes: "1234567"'),
        ((PROMPTS, "a {}"), "write it as a list: [...]"),
        ((SECOND, "  - a/b\n"), "write the reference under a key: `model: a/b`"),
        (
            ("publish:\n  " + REPO + "\n  steps: every", "publish: me/foo"),
            "write the reference under a key: `repo: me/foo`",
        ),
        ((DATASET, "me/rows"), "write the reference under a key: `path: me/rows`"),
        (("parameters:\n" + ALPHA, "tensors: me/foo\n"), None),
        ((SECOND, "  - model: https://huggingface.co/a/b\n"), "write the repo only: a/b"),
        (("dtype: float32", "order: shuffled"), "add `seed: 42`"),
        ((SECOND, '  - model: "./my model"\n'), "add `name: ...`, because the default is not a valid name"),
    ],
)
def test_hints(written: tuple[str, str], hint: str | None) -> None:
    assert the_problem(sample(written)).hint == hint


@pytest.mark.parametrize(
    ("written", "got", "hint"),
    [
        ('"0.5"', 'the text "0.5"', "write it without quotes: 0.5"),
        ("0,5", 'the text "0,5"', "write it with a point: 0.5"),
        ("atuo", 'the text "atuo"', "did you mean auto?"),
        ("half", 'the text "half"', None),
    ],
)
def test_a_parameter_that_is_a_number_or_a_word(written: str, got: str, hint: str | None) -> None:
    scaled = ("merge_method: projection", "merge_method: scaled")
    problem = the_problem(sample(scaled, (ALPHA, f"  lambda: 1\n  share: {written}\n")))
    assert problem.message == f"expected a number between 0 and 1, or auto; got {got}"
    assert (problem.key, problem.hint) == ("parameters.share", hint)


def test_a_decimal_comma_inside_braces() -> None:
    found = problems_of(sample(("parameters:\n" + ALPHA, "parameters: {alpha: 0,5}\n")))
    assert (found[0].key, found[0].hint) == ("parameters.5", "write decimal numbers with a point: 0.5")


def test_a_parameter_that_every_tensor_needs() -> None:
    scaled = ("merge_method: projection", "merge_method: scaled")
    missing = the_problem(sample(scaled, ("  alpha: 0.5\n", "  count: 2\n")))
    assert (missing.line, missing.key) == (7, "parameters.lambda")
    assert "needs this parameter, for every entry and every tensor: what it is multiplied with" in missing.message
    partly = the_problem(sample(scaled, ("  alpha: 0.5\n", "  lambda: [{filter: attn, value: 1}]\n")))
    assert partly.message == missing.message
    assert problems_of(sample(scaled, ("  alpha: 0.5\n", "  lambda: [{filter: attn, value: 1}, {value: 2}]\n"))) == []


def test_a_filtered_value_that_does_not_go_with_another_parameter() -> None:
    text = sample(("  alpha: 0.5\n", "  floor: 0.3\n  alpha: [{filter: attn, value: 0.2}, {value: 0.5}]\n"))
    assert "floor is larger than alpha" in the_problem(text).message
