"""Selection of the tensors to merge, by globs on their names."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from hubmerge.checkpoints.matching.components import pattern_for
from hubmerge.checkpoints.origin import Origin
from hubmerge.support.text import listed


@dataclass(frozen=True)
class Selection:
    """Globs (`vision_model.*`, `*.bias`) on the base model's names.

    A tensor is merged if it matches one of `include`, or `include` is empty, and it matches none of `exclude`.

    Attributes:
        include: globs of tensors to merge; empty for all.
        exclude: globs of tensors that are not merged.
        heads: names of tensors that are not merged because they are the head of one checkpoint; no part of the rule.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    heads: frozenset[str] = frozenset()

    def covers(self, name: str) -> bool:
        """Return True if the tensor with this name is to be merged."""
        return self.reason_against(name) is None

    def reason_against(self, name: str) -> str | None:
        """Return the reason why the tensor is not to be merged, in words; None if it is to be merged."""
        if name in self.heads:
            return "the checkpoint's own head: kept beside the merged model, in heads/"
        for pattern in self.exclude:
            if fnmatchcase(name, pattern):
                return f"excluded by {pattern!r}"
        if self.include and not any(fnmatchcase(name, pattern) for pattern in self.include):
            return "not among the included tensors"
        return None

    def excluding(self, patterns: Sequence[str]) -> str:
        """Return this selection with more exclusions, in recipe syntax.

        >>> Selection(include=("encoder.*",)).excluding(["*.bias"])
        'tensors: {include: ["encoder.*"], exclude: ["*.bias"]}'
        """
        return replace(self, exclude=(*self.exclude, *patterns))._written()

    def including(self, patterns: Sequence[str]) -> str:
        """Return this selection with other inclusions, in recipe syntax."""
        return replace(self, include=tuple(patterns))._written()

    def _written(self) -> str:
        keys = (("include", self.include), ("exclude", self.exclude))
        lists = (f"{key}: [{', '.join(json.dumps(glob) for glob in globs)}]" for key, globs in keys if globs)
        return f"tensors: {{{', '.join(lists)}}}"

    def check(self, names: Collection[str], origin: Origin) -> None:
        """Check that the selection covers at least one tensor.

        Args:
            names: the base model's parameters.
            origin: the base model's place.

        Raises:
            CheckpointError: no tensor is left; the message names the key of the recipe and some of the tensors.
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
        shown = listed([f'"{glob}"' for glob in wrong], most=4)
        raise origin.error(
            f"no tensor of the base model is left to merge under {where} in the recipe ({shown}); its tensors are, for "
            f"example, {', '.join(repr(name) for name in _examples(names, wrong[0]))}",
            hint=glob_hint(wrong[0], names),
        )

    def unmatched(self, names: set[str]) -> list[str]:
        """Return the globs that match none of `names`; they are probably misspelled."""
        return [
            pattern
            for pattern in (*self.include, *self.exclude)
            if not any(fnmatchcase(name, pattern) for name in names)
        ]


ALL_TENSORS = Selection()
"""Selection without globs: every tensor is merged."""


def glob_hint(glob: str, names: Collection[str]) -> str:
    """Return a hint on how to write globs for names such as `names`, instead of `glob`."""
    inside = f"{glob.rstrip('.')}."
    if any(name.startswith(inside) for name in names):
        return f"globs match whole names: for all tensors of {glob} write `{inside}*`"
    patterns = list(dict.fromkeys(pattern_for(name) for name in names if "." in name))[:2]
    return f"globs match whole names: {', '.join(f'`{pattern}`' for pattern in (*patterns, '*.bias'))}"


def _examples(names: Collection[str], glob: str) -> list[str]:
    """Return at most three names from different parts of the model, beginning with those that start with `glob`."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(pattern_for(name), name)
    parts = sorted(firsts.values(), key=lambda name: (not name.startswith(glob), "." not in name))
    return [*dict.fromkeys([*parts, *names])][:3]
