"""`form` of opcm: a shorthand in recipes and in parameters alike."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import hubmerge
from hubmerge.methods.opcm import OpcmParameters


def test_a_form_sets_the_parameters_that_it_stands_for() -> None:
    assert OpcmParameters() == OpcmParameters(form="paper")
    assert OpcmParameters(form="released") == OpcmParameters(diagonal="keep", rank_rule="fusion_bench")
    assert OpcmParameters(form="stable", precision="float32") == OpcmParameters(diagonal="keep", precision="float32")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"form": "released", "diagonal": "remove"}, "stands for diagonal: keep, not remove"),
        ({"form": "stable", "rank_rule": "fusion_bench"}, "stands for rank_rule: paper"),
        ({"form": "paper", "precision": "float32"}, "add `diagonal: keep`"),
        ({"form": "other"}, "paper"),
    ],
)
def test_contradictions_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpcmParameters.model_validate(given)


def test_convert_prints_what_a_form_stands_for() -> None:
    models = [{"model": "me/a"}, {"model": "me/b"}]
    recipe = {"merge_method": "opcm", "base_model": "me/base", "models": models, "parameters": {"form": "released"}}
    text = hubmerge.convert(recipe)
    assert "diagonal: keep" in text
    assert "rank_rule: fusion_bench" in text
    assert "form" not in text.partition("parameters:")[2]
