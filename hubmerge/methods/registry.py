"""Merge methods by name: those of this package, and those that other distributions offer as plug-ins.

A plug-in is an entry point of the group `hubmerge.methods` whose name is the method's name and whose object is a
`Method`, or a class of one that is constructed without arguments. It is imported only when a recipe names it or when
methods are listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hubmerge.errors import HubmergeError
from hubmerge.methods.averaging import AdaptiveScale, WeightAverage
from hubmerge.methods.base import Method
from hubmerge.methods.dop import Dop
from hubmerge.methods.linear import Linear
from hubmerge.methods.magmax import MagMax
from hubmerge.methods.moments.ace import Ace
from hubmerge.methods.moments.spectra import IsoC, Spectrum, SubspaceBoost
from hubmerge.methods.moments.wudi import Wudi
from hubmerge.methods.null_space import Nufilt, NullSpaceFilter
from hubmerge.methods.opcm import Opcm
from hubmerge.methods.task_arithmetic import TaskArithmetic
from hubmerge.methods.ties import Ties
from hubmerge.support.plugins import Plugin, find_plugin, installed_plugins

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
)
"""The methods of this package, the default first."""

_BUILT_IN = {method.name: method for method in METHODS}
_GIVEN: dict[str, Method] = {}


@dataclass(frozen=True)
class InstalledMethod:
    """A method that recipes can name; `distribution` and `version` are None for a method of this package."""

    method: Method
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
    """Return the names of all methods, without importing plug-ins: those of this package first."""
    return (*_BUILT_IN, *(name for name in _plugins() if name not in _BUILT_IN), *_GIVEN)


def find_method(name: str) -> InstalledMethod:
    """Return the method that a recipe names, and where it comes from.

    Raises:
        HubmergeError: the method is unknown.
        MachineError: it is a plug-in that cannot be used.
    """
    if name in _GIVEN:
        return InstalledMethod(_GIVEN[name])
    if name in _BUILT_IN:
        return InstalledMethod(_BUILT_IN[name])
    plugin = find_plugin(GROUP, name)
    if plugin is None:
        raise HubmergeError(f"merge_method: unknown method {name!r}", hint="one of " + ", ".join(method_names()))
    return InstalledMethod(_loaded(plugin), plugin.distribution, plugin.version)


def method_named(name: str) -> Method:
    """Return the method that a recipe names; see `find_method` for the errors."""
    return find_method(name).method


def installed_methods() -> Iterator[InstalledMethod | FaultyMethod]:
    """Yield all methods for a list, with the faults of plug-ins that cannot be used."""
    yield from (InstalledMethod(method) for method in METHODS)
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
def given_method(method: Method) -> Iterator[str]:
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


def _loaded(plugin: Plugin) -> Method:
    """Return the method of a plug-in, checked."""
    loaded = plugin.load()
    method = loaded() if isinstance(loaded, type) and issubclass(loaded, Method) else loaded
    if not isinstance(method, Method):
        raise plugin.fault("is not a hubmerge.Method")
    lacking = [name for name in ("name", "source", "summary") if not isinstance(getattr(method, name, None), str)]
    if lacking:
        raise plugin.fault(f"has no {' and no '.join(lacking)}")
    if method.name != plugin.name:
        raise plugin.fault(f"calls itself {method.name!r}; the entry point and the method must have the same name")
    return method
