"""Which tensors a recipe wants merged, by globs on their names."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hubmerge.checkpoints.matching.components import pattern_for
from hubmerge.errors import CheckpointError


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

    def excluding(self, patterns: Sequence[str]) -> str:
        """This selection without what `patterns` take, as it is written in a recipe."""
        return replace(self, exclude=(*self.exclude, *patterns))._written()

    def including(self, patterns: Sequence[str]) -> str:
        """This selection with `patterns` for what is included, as it is written in a recipe."""
        return replace(self, include=tuple(patterns))._written()

    def _written(self) -> str:
        keys = (("include", self.include), ("exclude", self.exclude))
        lists = (f"{key}: [{', '.join(json.dumps(glob) for glob in globs)}]" for key, globs in keys if globs)
        return f"tensors: {{{', '.join(lists)}}}"

    def check(self, names: Collection[str], label: str) -> None:
        """Check that something of the base model, which is called `label` and has the parameters `names`, is left.

        Raises CheckpointError naming the key of the recipe at fault, and some of the names.
        """
        if not names or any(self.covers(name) for name in names):
            return
        keys = [
            key
            for key, alone in (("include", replace(self, exclude=())), ("exclude", replace(self, include=())))
            if not any(alone.covers(name) for name in names)
        ]
        globs = {"include": self.include, "exclude": self.exclude}
        keys = keys or list(globs)
        wrong = [glob for key in keys for glob in globs[key]]
        where = " and ".join(f"`tensors: {key}`" for key in keys)
        listed = ", ".join(f'"{glob}"' for glob in wrong[:4]) + (", ..." if len(wrong) > 4 else "")
        raise CheckpointError(
            f"{where} in the recipe ({listed}): no tensor of the base model {label} is left to be merged; "
            f"it has for example {', '.join(repr(name) for name in _examples(names, wrong[0]))}",
            hint=glob_hint(wrong[0], names),
        )

    def unmatched(self, names: set[str]) -> list[str]:
        """The globs that match none of `names`: most likely misspelt."""
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(fnmatchcase(name, pattern) for name in names)
        ]


ALL_TENSORS = Selection()


def glob_hint(glob: str, names: Collection[str]) -> str:
    """How to write a glob that takes too little or too much, of names like `names`."""
    inside = f"{glob.rstrip('.')}."
    if any(name.startswith(inside) for name in names):
        return f"globs stand for whole names: for all tensors of {glob} write `{inside}*`"
    patterns = list(dict.fromkeys(pattern_for(name) for name in names if "." in name))[:2]
    return f"globs stand for whole names: {', '.join(f'`{pattern}`' for pattern in (*patterns, '*.bias'))}"


def _examples(names: Collection[str], glob: str) -> list[str]:
    """Three names at most, of different parts of the model as far as there are; those that `glob` may mean first."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(pattern_for(name), name)
    parts = sorted(firsts.values(), key=lambda name: (not name.startswith(glob), "." not in name))
    return [*dict.fromkeys([*parts, *names])][:3]
