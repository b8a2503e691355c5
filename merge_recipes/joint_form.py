"""The form of a merge method that merges all models at once: whether a recipe means it, and what it needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from merge_recipes.errors import Problem
from merge_recipes.mergekit import WITHOUT_BASE
from merge_recipes.read_yaml import Document
from merge_recipes.rules import has_queries, is_base, mapping_at, raw_entries
from merge_recipes.tokenizer_rules import builds_tokenizer


class JointForm(Protocol):
    """The form of a merge method that merges all models at once."""

    @property
    def base(self) -> str:
        """`required` or `optional` as the origin of task vectors, or `model` if it is merged like any other model."""

    @property
    def fewest(self) -> int:
        """Smallest number of models besides the origin."""

    @property
    def most(self) -> int | None:
        """Largest number of models besides the origin, None for any."""

    @property
    def Parameters(self) -> type[BaseModel]:  # noqa: N802 - the name of the class in methods
        """The parameters class."""

    def prefers_joint(self, parameters: dict[str, Any]) -> bool:
        """Return True if top-level parameters ask for this form."""


@runtime_checkable
class JointCatalog(Protocol):
    """A catalog that has methods of both forms."""

    @property
    def joint(self) -> Mapping[str, JointForm]:
        """The methods that merge all models at once, by name."""

    @property
    def streams(self) -> Collection[str]:
        """The names of methods that merge one checkpoint after another."""


def lent_base(data: Any) -> Any:
    """Return the model that takes the place of the base model in plain data of a recipe; None if it must name one."""
    if not isinstance(data, dict) or "base_model" in data:
        return None
    models, method = data.get("models"), data.get("merge_method")
    at_once = data.get("form") == "joint" or bool(data.get("slices"))
    needs_none = at_once or (isinstance(method, str) and method in WITHOUT_BASE)
    first = models[0] if isinstance(models, list) and models else None
    return first.get("model") if needs_none and isinstance(first, dict) else None


def joint_form(document: Document, method: str, catalog: object) -> JointForm | None:
    """Return the form of a method that merges all models at once if the recipe means this one, else None."""
    form = catalog.joint.get(method) if isinstance(catalog, JointCatalog) else None
    if form is None or not isinstance(catalog, JointCatalog) or method not in catalog.streams:
        return form
    data = mapping_at(document)
    if data.get("slices"):
        return form
    if data.get("form") is not None:
        return form if data["form"] == "joint" else None
    lists_base = any(is_base(document, entry) for entry in raw_entries(document))
    parameters = data.get("parameters")
    prefers = form.prefers_joint(parameters if isinstance(parameters, dict) else {})
    prefers |= builds_tokenizer(data)
    return form if lists_base or "base_model" not in data or prefers else None


def no_joint_form(document: Document, method: str, catalog: object) -> Iterator[Problem]:
    """Yield a problem if a recipe asks for the joint form of a method that has none, or stacks layers with it."""
    if mapping_at(document).get("slices"):
        message = f"the method {method} merges one checkpoint after another, and layers are stacked in one step"
        known = ", ".join(sorted(catalog.joint)) if isinstance(catalog, JointCatalog) else "none is known"
        yield document.problem(("slices",), message, f"choose another method: {known}")
    elif mapping_at(document).get("form") == "joint":
        message = f"the method {method} merges one checkpoint after another, it has no joint form"
        known = ", ".join(sorted(catalog.joint)) if isinstance(catalog, JointCatalog) else "none is known"
        yield document.problem(("form",), message, f"remove the key, or choose another method: {known}")


def joint_problems(document: Document, method: str, form: JointForm) -> Iterator[Problem]:
    """Check the base model and the number of models of a method that merges all at once."""
    data = mapping_at(document)
    if data.get("form") == "stream":
        yield document.problem(("form",), f"the method {method} merges all models at once, in one step", "remove it")
    if form.base == "required" and "base_model" not in data:
        yield document.problem(("base_model",), f"this key is required: {method} starts from a base model")
    entries = raw_entries(document)
    if has_queries(document) or not entries:
        return
    count = sum(form.base == "model" or not is_base(document, entry) for entry in entries)
    if count < form.fewest or (form.most is not None and count > form.most):
        besides = "" if form.base == "model" else " besides the base model"
        message = f"{method} merges {_expected(form)}{besides}, got {count}"
        yield document.problem(("models",), message)


def _expected(form: JointForm) -> str:
    """Return "2 models", "2 to 3 models" or "at least 2 models"."""
    if form.most is None:
        return f"at least {form.fewest} {'model' if form.fewest == 1 else 'models'}"
    numbers = str(form.most) if form.fewest == form.most else f"{form.fewest} to {form.most}"
    return f"{numbers} {'model' if form.most == 1 else 'models'}"
