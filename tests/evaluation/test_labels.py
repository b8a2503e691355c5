from __future__ import annotations

from typing import Any

import datasets
import pytest

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.labels import read_labels


def rows_of(labels: Any, feature: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"label": labels}, features=datasets.Features({"label": feature}))


def read(labels: Any, feature: Any, class_names: Any = None, column: str = "label") -> Any:
    names, numbers = read_labels(rows_of(labels, feature), column, class_names, "task x")
    assert str(numbers.dtype) == "int64"
    return names, numbers.tolist()


WORD, NUMBER, FLAG = datasets.Value("string"), datasets.Value("int32"), datasets.Value("bool")
LABEL = datasets.ClassLabel(names=["n01", "n02"])


@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "expected"),
    [
        ([0, 1, 1], LABEL, None, (("n01", "n02"), [0, 1, 1])),
        ([0, 1, 1], LABEL, ["cat", "dog"], (("cat", "dog"), [0, 1, 1])),
        ([2, 0], NUMBER, ["a", "b", "c"], (("a", "b", "c"), [2, 0])),
        ([True, False], FLAG, ["no tumor", "tumor"], (("no tumor", "tumor"), [1, 0])),
        (["dog", "cat", "dog"], WORD, None, (("cat", "dog"), [1, 0, 1])),
        (["dog", "cat"], WORD, ["dog", "cat", "cow"], (("dog", "cat", "cow"), [0, 1])),
    ],
)
def test_every_form_of_labels(labels: Any, feature: Any, class_names: Any, expected: Any) -> None:
    assert read(labels, feature, class_names) == expected


@pytest.mark.parametrize(
    ("labels", "feature", "class_names", "message"),
    [
        ([0, 1], LABEL, ["cat"], "class_names has 1 name, the dataset has 2 classes"),
        ([0, 1], LABEL, ["cat", "dog", "cow"], "class_names has 3 names, the dataset has 2"),
        ([0, -1], LABEL, None, r"row 1 has label -1 in column 'label', outside 0\.\.1"),
        ([0, 1, 2], NUMBER, ["cat", "dog"], r"row 2 has label 2 .* outside 0\.\.1"),
        ([0, 1], NUMBER, None, "the dataset has no class names"),
        ([True], FLAG, None, "column 'label' is boolean"),
        ([True], FLAG, ["a", "b", "c"], "boolean, but class_names has 3 names"),
        (["dog", "cow"], WORD, ["dog"], "the label 'cow', which is not among class_names"),
        (["dog", None], WORD, None, "row 1 has no label"),
        ([0.5], datasets.Value("float32"), ["a", "b"], "not classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, feature: Any, class_names: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        read(labels, feature, class_names)
    assert str(caught.value).startswith("task x: ")


SEA = datasets.ClassLabel(names=["River", "sea_lake", "Forest"])


def test_names_with_another_spelling_are_accepted() -> None:
    assert read([2, 0], SEA, ["river", "lake or sea", "forest"])[0] == ("river", "lake or sea", "forest")


@pytest.mark.parametrize("names", [["forest", "river", "lake"], ["river", "forest", "wood"], ["lake", "x", "sea lake"]])
def test_the_dataset_s_names_in_another_order_are_refused(names: Any) -> None:
    with pytest.raises(
        EvaluationError, match=r"class \d is .* in class_names, but .* in the dataset, where .* is class \d"
    ):
        read([2, 0], SEA, names)


def test_the_message_about_a_missing_column_lists_the_columns() -> None:
    with pytest.raises(EvaluationError, match="no label column 'cls' in the dataset; its columns: label"):
        read([0], LABEL, column="cls")
