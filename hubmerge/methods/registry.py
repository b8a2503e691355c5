"""Merge methods by name: those of this package, and those that other distributions offer as plug-ins.

A plug-in is an entry point of the group `hubmerge.methods` whose name is the method's name and whose object is a
`Method` or a `JointMethod`, or a class of one that is constructed without arguments. It is imported only when a recipe
names it or when methods are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from hubmerge.errors import HubmergeError
from hubmerge.methods.averaging import AdaptiveScale, WeightAverage
from hubmerge.methods.base import Method
from hubmerge.methods.dop import Dop
from hubmerge.methods.joint.base import JointMethod
from hubmerge.methods.joint.methods import JOINT_METHODS
from hubmerge.methods.linear import Linear
from hubmerge.methods.magmax import MagMax
from hubmerge.methods.moments.ace import Ace
from hubmerge.methods.moments.spectra import IsoC, Spectrum, SubspaceBoost
from hubmerge.methods.moments.sums import Sums
from hubmerge.methods.moments.wudi import Wudi
from hubmerge.methods.null_space import Nufilt, NullSpaceFilter
from hubmerge.methods.opcm import Opcm
from hubmerge.methods.task_arithmetic import TaskArithmetic
from hubmerge.methods.ties import Ties
from hubmerge.support.plugins import Plugin, find_plugin, installed_plugins
from merge_recipes import Recipe

GROUP = "hubmerge.methods"

METHODS: tuple[Method, ...] = (
    Opcm(),
    AdaptiveScale(),
    WeightAverage(),
    Linear(),
    TaskArithmetic(),
    Ties(),
    MagMax(),
    NullSpaceFilter(),
    Nufilt(),
    Dop(),
    Wudi(),
    IsoC(),
    SubspaceBoost(),
    Spectrum(),
    Ace(),
    Sums(),
)
"""The folds of this package, the default first."""

AnyMethod = Method | JointMethod

_FOLDS = {method.name: method for method in METHODS}
_JOINT = {method.name: method for method in JOINT_METHODS}
_BUILT_IN: Mapping[str, AnyMethod] = {**_JOINT, **_FOLDS}
_GIVEN: dict[str, AnyMethod] = {}


@dataclass(frozen=True)
class InstalledMethod:
    """A method that recipes can name; `distribution` and `version` are None for a method of this package."""

    method: AnyMethod
    distribution: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class FaultyMethod:
    """A plug-in that cannot be used, and why."""

    name: str
    distribution: str
    version: str
    fault: str


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, without importing plug-ins: those of this package first, its folds before all.

    A name that has both forms is there once.
    """
    own = dict.fromkeys([*_FOLDS, *_JOINT])
    return (*own, *(name for name in _plugins() if name not in own), *_GIVEN)


def find_method(name: str, *, joint: bool = False) -> InstalledMethod:
    """Return the method that a recipe names, and where it comes from.

    Args:
        name: the name.
        joint: where the name has two forms, True for the joint one; False for the fold.

    Raises:
        HubmergeError: the method is unknown.
        MachineError: it is a plug-in that cannot be used.
    """
    if name in _GIVEN:
        return InstalledMethod(_GIVEN[name])
    if name in _BUILT_IN:
        return InstalledMethod(_JOINT[name] if joint and name in _JOINT else _BUILT_IN[name])
    plugin = find_plugin(GROUP, name)
    if plugin is None:
        raise HubmergeError(f"merge_method: unknown method {name!r}", hint="one of " + ", ".join(method_names()))
    return InstalledMethod(_loaded(plugin), plugin.distribution, plugin.version)


def method_named(name: str) -> Method:
    """Return the fold that a recipe names; see `find_method` for further errors.

    Raises:
        HubmergeError: the method has a joint form only.
    """
    method = find_method(name).method
    if not isinstance(method, Method):
        raise HubmergeError(f"merge_method: {name} merges all models at once, not one after another")
    return method


def is_joint(recipe: Recipe) -> bool:
    """Return True if a recipe merges all models at once, in one step.

    A name with two forms means the fold, unless the recipe asks for the joint form: with `form: joint`, or with
    something that only this form has, such as a base model among the models or no base model at all.
    """
    name = recipe.merge_method
    if recipe.slices and name in _JOINT:
        return True
    if recipe.form is not None and name in _FOLDS and name in _JOINT:
        return recipe.form == "joint"
    joint = _JOINT.get(name)
    if joint is not None and name in _FOLDS:
        asks = recipe.tokenizer_options is not None or joint.prefers_joint(recipe.parameters)
        return recipe.lists_base or not recipe.names_base or asks
    return isinstance(find_method(name).method, JointMethod)


def method_of(recipe: Recipe) -> AnyMethod:
    """Return the merge method of a recipe in the form that it asks for; see `find_method` for the errors."""
    return find_method(recipe.merge_method, joint=is_joint(recipe)).method


def installed_methods() -> Iterator[InstalledMethod | FaultyMethod]:
    """Yield all methods for a list, with the faults of plug-ins that cannot be used."""
    own: tuple[AnyMethod, ...] = (*METHODS, *JOINT_METHODS)
    yield from (InstalledMethod(method) for method in own)
    for name, offers in _plugins().items():
        for plugin in offers:
            if name in _BUILT_IN:
                fault = f"its name is that of a method of hubmerge; {name} in a recipe means that one"
                yield FaultyMethod(name, plugin.distribution, plugin.version, fault)
                continue
            try:
                yield find_method(name)
            except HubmergeError as error:
                yield FaultyMethod(name, plugin.distribution, plugin.version, error.message)


@contextmanager
def given_method(method: AnyMethod) -> Iterator[str]:
    """Let recipes of this process name a method object; yield the name.

    Raises:
        HubmergeError: the name is that of an installed method.
    """
    if method.name in method_names():
        raise HubmergeError(
            f"method {method.name!r}: the name is taken by an installed method", hint="give your method another name"
        )
    _GIVEN[method.name] = method
    try:
        yield method.name
    finally:
        del _GIVEN[method.name]


def _plugins() -> dict[str, list[Plugin]]:
    found: dict[str, list[Plugin]] = {}
    for plugin in installed_plugins(GROUP):
        found.setdefault(plugin.name, []).append(plugin)
    return found


def _loaded(plugin: Plugin) -> AnyMethod:
    """Return the method of a plug-in, checked."""
    loaded = plugin.load()
    method = loaded() if isinstance(loaded, type) and issubclass(loaded, (Method, JointMethod)) else loaded
    if not isinstance(method, (Method, JointMethod)):
        raise plugin.fault("is not a hubmerge.Method and not a hubmerge.JointMethod")
    lacking = [name for name in ("name", "source", "summary") if not isinstance(getattr(method, name, None), str)]
    if lacking:
        raise plugin.fault(f"has no {' and no '.join(lacking)}")
    if method.name != plugin.name:
        raise plugin.fault(f"calls itself {method.name!r}; the entry point and the method must have the same name")
    return method
