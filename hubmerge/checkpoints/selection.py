"""Which tensors a recipe wants merged, by globs on their names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Selection:
    """Globs (`vision_model.*`, `*.bias`) on canonical names.

    A tensor is merged if it matches any of `include`, or `include` is empty, and none of `exclude`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether the tensor of this name is to be merged."""
        return self.reason_against(name) is None

    def reason_against(self, name: str) -> str | None:
        """Why the tensor is not to be merged, in words; None if it is."""
        for pattern in self.exclude:
            if fnmatchcase(name, pattern):
                return f"excluded by {pattern!r}"
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return "not among the included tensors"
        return None

    def unmatched(self, names: set[str]) -> list[str]:
        """The globs that match none of `names`: most likely misspelt."""
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(fnmatchcase(name, pattern) for name in names)
        ]


EVERYTHING = Selection()
