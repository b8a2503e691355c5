"""A small recipe, a catalog and a resolver for the tests of merge_recipes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from merge_recipes import LoadedRecipe, PerTensor, Problem, RecipeError, parse_recipe

RECIPE = """\
merge_method: projection
base_model: openai/clip-vit-base-patch32
models:
  - model: tanganke/clip-vit-base-patch32_sun397
  - model: tanganke/clip-vit-base-patch32_stanford-cars@main
parameters:
  alpha: 0.5
dtype: float32
evaluate:
  tasks:
    - name: sun397
      kind: zero-shot-image-classification
      dataset: {path: tanganke/sun397, split: test, image: image, label: label}
      prompts: ["a photo of a {}."]
      metrics: [accuracy]
publish:
  repo: me/clip-vit-base-patch32-8-tasks
  steps: every
"""


Number = Annotated[float, Field(ge=0, le=1), Tag("number")]
Share = Annotated[
    Number | Annotated[Literal["auto"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "number"),
]


class Projection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, PerTensor()] = Field(default=0.5, ge=0, le=1, description="share that is protected")
    floor: Annotated[float, PerTensor()] = Field(default=0.0, ge=0, le=1)
    rank_rule: Literal["paper", "fusion_bench"] = "paper"
    normalize: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Projection:
        if self.floor > self.alpha:
            raise ValueError("floor is larger than alpha")
        return self


class Scaled(BaseModel):
    share: Annotated[Share, PerTensor()] = 0.5
    scale_factor: Annotated[float, PerTensor()] = Field(alias="lambda", gt=0, description="what it is multiplied with")
    count: int = 1


@dataclass(frozen=True)
class SampleCatalog:
    methods: Mapping[str, type[BaseModel]] = field(
        default_factory=lambda: dict[str, type[BaseModel]](projection=Projection, scaled=Scaled)
    )
    task_kinds: Collection[str] = ("zero-shot-image-classification", "image-classification")
    metrics: Collection[str] = ("accuracy", "f1")


CATALOG = SampleCatalog()


class SampleResolver:
    """Resolver that returns a different commit for each repo and revision, and records the requests."""

    def __init__(self, answer: Callable[[str, str, str | None], str] | None = None) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self._answer = answer or (lambda *asked: hashlib.sha1(repr(asked).encode()).hexdigest())  # noqa: S324

    def resolve(self, kind: str, path: str, revision: str | None) -> str:
        self.asked.append((kind, path, revision))
        return self._answer(kind, path, revision)


def sample(*changes: tuple[str, str], text: str = RECIPE) -> str:
    """Return the small recipe with parts of its text replaced. Each replaced text must occur exactly once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        text = text.replace(old, new)
    return text


def load(*changes: tuple[str, str], path: Path = Path("sample.yaml")) -> LoadedRecipe:
    return parse_recipe(sample(*changes), path=path, catalog=CATALOG)


def problems_of(text: str) -> list[Problem]:
    """Return all problems of a recipe."""
    try:
        parse_recipe(text, path="sample.yaml", catalog=CATALOG)
    except RecipeError as error:
        return list(error.problems)
    return []


def the_problem(text: str) -> Problem:
    """Return the only problem of a recipe."""
    found = problems_of(text)
    assert len(found) == 1, "\n".join(map(str, found)) or "there are no problems"
    return found[0]


Mistake = tuple[str, str, int, int, str, str]
"""Replaced text, new text; line, column, key; part of the message."""


def check_mistake(mistake: Mistake, *, alone: bool = True) -> None:
    """Check that a mistake in the small recipe is reported at its place, and that there is no other problem.

    Args:
        mistake: the mistake.
        alone: False if other problems follow from it.
    """
    old, new, line, column, key, message = mistake
    problems = problems_of(sample((old, new)))
    found = [problem for problem in problems if message in problem.message]
    assert found, "\n".join(map(str, problems))
    assert (found[0].file, found[0].line, found[0].column, found[0].key) == ("sample.yaml", line, column, key)
    assert str(found[0]).startswith(f"sample.yaml:{line}:{column}: ")
    assert len(problems) == 1 or not alone, "\n".join(map(str, problems))
