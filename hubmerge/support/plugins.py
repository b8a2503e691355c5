"""Objects that installed distributions offer through entry points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from hubmerge.errors import MachineError


@dataclass(frozen=True)
class Plugin:
    """One entry point of a group, not loaded yet: the name that recipes use, and the distribution that offers it."""

    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    def load(self) -> object:
        """Import and return the object.

        Raises:
            MachineError: importing it failed, with the distribution's name and version.
        """
        try:
            return self.entry_point.load()
        except Exception as error:
            raise self.fault(f"cannot be imported: {type(error).__name__}: {error}") from error

    def fault(self, problem: str) -> MachineError:
        """Return the error about this plug-in."""
        group, target = self.entry_point.group, self.entry_point.value
        return MachineError(
            f"plug-in {self.name!r} of {self.distribution} {self.version} ({group}: {target}) {problem}",
            hint=f"update {self.distribution}, or remove it: pip uninstall {self.distribution}",
        )


@cache
def installed_plugins(group: str) -> Sequence[Plugin]:
    """Return the plug-ins of an entry point group, sorted by name and distribution, without importing any."""
    found = {
        (point.name, point.dist.name, point.dist.version): point
        for point in entry_points(group=group)
        if point.dist is not None
    }
    return tuple(Plugin(*key, point) for key, point in sorted(found.items()))


def find_plugin(group: str, name: str) -> Plugin | None:
    """Return the plug-in of a group that has a name, None if there is none.

    Raises:
        MachineError: several distributions offer it.
    """
    offers = [plugin for plugin in installed_plugins(group) if plugin.name == name]
    if len(offers) > 1:
        others = " and ".join(f"{one.distribution} {one.version}" for one in offers)
        raise offers[0].fault(f"has the same name as another plug-in: it is offered by {others}")
    return offers[0] if offers else None
