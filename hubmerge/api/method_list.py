"""The merge methods that recipes can name: what each does, its parameters, what it can, and its source."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.errors import UsageError
from hubmerge.support.text import counted
from hubmerge.support.version import VERSION
from merge_recipes.errors import did_you_mean

if TYPE_CHECKING:
    from hubmerge.methods import FaultyMethod, InstalledMethod, JointMethod, Method

_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")
_SECTION = re.compile(r"\n+(Args|Attributes|Example|Examples|Raises|Returns):\n")
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter of a merge method; `str(parameter)` gives two lines."""

    name: str
    """Name under `parameters` in a recipe."""
    description: str
    """What it does."""
    required: bool
    """True if a recipe must set it."""
    default: Any
    """Default value; None for none."""
    per_tensor: bool
    """True if its value may depend on the tensor, as a filter list or a gradient."""
    per_entry: bool
    """True if an entry of the stream may have its own value."""
    values: Mapping[str, Any]
    """JSON Schema of a value: type, choices and bounds."""

    def __str__(self) -> str:
        start = f"{self.name} (required)" if self.required else f"{self.name} = {_written(self.default)}"
        marks = [
            mark for mark, applies in {"per tensor": self.per_tensor, "per entry": self.per_entry}.items() if applies
        ]
        return f"{start}: {'; '.join([_values(self.values), *marks])}\n    {self.description}"


@dataclass(frozen=True)
class MethodInfo:
    """A merge method that recipes can name, or a plug-in that cannot be used; `str(method)` gives one line."""

    name: str
    """Name in recipes."""
    summary: str
    """One sentence about the method; empty if it cannot be used."""
    source: str
    """Paper and equation; empty if it cannot be used."""
    parameters: tuple[str, ...]
    """Names of its parameters."""
    distribution: str
    """Installed distribution that offers the method."""
    version: str
    """Version of the distribution."""
    fault: str | None = None
    """Reason why the method cannot be used; None if it can."""
    form: str = "stream"
    """stream: merges one checkpoint after another; joint: merges all models at once."""
    description: str = ""
    """What the method does, with its equations."""
    parameter_details: tuple[ParameterInfo, ...] = ()
    """Its parameters with defaults and ranges."""
    order_free: bool = False
    """True if the order of the models changes nothing but rounding, with any parameters."""
    revokes: bool = False
    """True if an entry can be taken out of the merge again (`hubmerge revoke`)."""
    combines: bool = False
    """True if streams of one base model can be added to one (`hubmerge combine`)."""
    base_model: str = "required"
    """Part of the base model: required, optional (the origin of task vectors, if named), or model (like any other)."""
    fewest: int = 1
    """Smallest number of models besides the base model."""
    most: int | None = None
    """Largest number of models besides the base model; None for any."""

    @property
    def papers(self) -> tuple[str, ...]:
        """Addresses of the papers that the source names."""
        return tuple(f"https://arxiv.org/abs/{number}" for number in dict.fromkeys(_ARXIV.findall(self.source)))

    @property
    def details(self) -> str:
        """Text with everything about the method."""
        if self.fault is not None:
            return str(self)
        rows = [f"{title:<11}{line}".rstrip() for title, line in self._rows()]
        names = "\n".join(f"  {parameter}" for parameter in self.parameter_details)
        parameters = f"parameters\n{names}" if names else "parameters none"
        head = f"{self.name}{self._form}: {self.summary}"
        return "\n\n".join(part for part in (head, self.description, "\n".join(rows), parameters) if part)

    def _rows(self) -> Iterator[tuple[str, str]]:
        joint = self.form == "joint"
        yield "merges", "all models at once, in one step" if joint else "one checkpoint after another, a step each"
        if joint:
            yield "models", _models(self.fewest, self.most) + _BASES[self.base_model]
        if self.most != 1:
            yield "order", "changes nothing but rounding" if self.order_free else "can change the result"
        yield "revoke", "yes" if self.revokes else _NOT_REVOKED[self.form]
        yield "combine", "yes" if self.combines else "no"
        yield "source", self.source
        for address in self.papers:
            yield "", address
        yield "from", f"{self.distribution} {self.version}"

    @property
    def _form(self) -> str:
        return " [joint]" if self.form == "joint" else ""

    def __str__(self) -> str:
        origin = f"({self.distribution} {self.version})"
        if self.fault is not None:
            return f"{self.name}{self._form}: cannot be used: {self.fault} {origin}"
        papers = ", ".join(f"arXiv:{number}" for number in dict.fromkeys(_ARXIV.findall(self.source)))
        return f"{self.name}{self._form}: {self.summary}; {papers or self.source} {origin}"


_NOT_REVOKED = {
    "stream": "no: remove the entry from the recipe and run with --replay, which merges the others again",
    "joint": "no: remove the model from the recipe and run it again",
}
_BASES = {
    "required": " and the base model",
    "optional": "; the base model is optional",
    "model": "; the base model is merged like any other where the recipe lists it",
}


def _models(fewest: int, most: int | None) -> str:
    if most is None:
        return f"{fewest} or more"
    return counted(most, "model") if fewest == most else f"{fewest} to {most}"


def methods(name: str | None = None) -> tuple[MethodInfo, ...]:
    """List the merge methods of hubmerge, the default first, then those of installed plug-ins.

    Args:
        name: list only the method of this name: two if it has a stream form and a joint one.

    Raises:
        UsageError: there is no method of this name.

    Example:
        >>> import hubmerge
        >>> [method.name for method in hubmerge.methods()][:2]
        ['opcm', 'adaptive_scale']
        >>> [method.order_free for method in hubmerge.methods("wudi")]
        [True]
    """
    from hubmerge.methods import installed_methods, method_names

    found = tuple(_described(one) for one in installed_methods() if name is None or _name(one) == name)
    if name is not None and not found:
        raise UsageError(
            f"no merge method {name!r}{did_you_mean(name, method_names())}", hint="`hubmerge methods` lists all"
        )
    return found


def _name(one: InstalledMethod | FaultyMethod) -> str:
    return one.method.name if hasattr(one, "method") else one.name


def _described(one: InstalledMethod | FaultyMethod) -> MethodInfo:
    from hubmerge.methods import FaultyMethod, Method

    if isinstance(one, FaultyMethod):
        return MethodInfo(one.name, "", "", (), one.distribution, one.version, one.fault)
    method, parameters = one.method, tuple(_parameters(one.method))
    names = tuple(parameter.name for parameter in parameters)
    origin = (one.distribution or "hubmerge", one.version or VERSION)
    about: dict[str, Any] = {
        "description": _description(type(method)),
        "parameter_details": parameters,
        "order_free": method.order_free,
    }
    if isinstance(method, Method):
        about |= {"revokes": method.revokes, "combines": method.adds}
    else:
        about |= {"form": "joint", "base_model": method.base, "fewest": method.fewest, "most": method.most}
    return MethodInfo(method.name, method.summary, method.source, names, *origin, **about)


def _description(method: type) -> str:
    """Return the docstring of a class without the sections for those who call it; empty if it has none of its own."""
    return _SECTION.split(inspect.cleandoc(method.__dict__.get("__doc__") or ""))[0]


def _parameters(method: Method | JointMethod) -> Iterator[ParameterInfo]:
    from merge_recipes.parameters import is_per_entry, is_per_tensor, parameter_fields

    schemas = method.Parameters.model_json_schema()["properties"]
    for name, field in parameter_fields(method.Parameters).items():
        values = {key: value for key, value in schemas[name].items() if key not in ("title", "description", "default")}
        description = " ".join((field.description or "").split())
        yield ParameterInfo(
            name,
            description,
            field.is_required(),
            schemas[name].get("default"),
            is_per_tensor(field),
            is_per_entry(field),
            values,
        )


def _values(schema: Mapping[str, Any]) -> str:
    """Return the values that a JSON Schema allows, for people."""
    if "const" in schema:
        return _written(schema["const"])
    if "enum" in schema:
        return _listed(map(_written, schema["enum"]))
    options = schema.get("oneOf") or schema.get("anyOf")
    if options:
        return _listed(dict.fromkeys(told for told in map(_values, options) if told != "null"))
    name = schema.get("type", "value")
    kind = {"boolean": "true or false", "integer": "whole number"}.get(name, name)
    if {"minimum", "maximum"} <= schema.keys():
        return f"{kind} from {_written(schema['minimum'])} to {_written(schema['maximum'])}"
    bounds = ", ".join(f"{sign} {_written(schema[key])}" for key, sign in _BOUNDS.items() if key in schema)
    return f"{kind} {bounds}".rstrip()


def _listed(values: Iterable[str]) -> str:
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last


def _written(value: Any) -> str:
    """Return a value as a recipe has it."""
    if value is None:
        return "none"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
