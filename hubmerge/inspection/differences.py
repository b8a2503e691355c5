"""Differences between two models: of each tensor, of each layer, and of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.linalg import cosine_of_parts, total_norm
from hubmerge.support.text import counted

SHOWN = 20
"""Number of tensors that the text shows if no limit is given."""


@dataclass(frozen=True)
class Measures:
    """How far one or several tensors of a model are from those of another one.

    Attributes:
        one_norm: the Frobenius norm in the first model.
        other_norm: the norm in the second model.
        difference_norm: the norm of the difference.
        cosine: the cosine of the angle between both; None if one of them is zero.
        largest: the largest absolute difference of a value.
        changed: the number of values that differ.
        elements: the number of values.
        finite: False if a value is infinite or not a number in one model and something else in the other.
    """

    one_norm: float
    other_norm: float
    difference_norm: float
    cosine: float | None
    largest: float
    changed: int
    elements: int
    finite: bool = True

    @property
    def relative(self) -> float | None:
        """The norm of the difference, relative to the norm in the first model; None if that is zero."""
        if self.one_norm:
            return self.difference_norm / self.one_norm
        return None if self.difference_norm else 0.0

    @classmethod
    def joined(cls, parts: Sequence[Measures]) -> Measures:
        """Return the measures of several tensors together."""
        one, other = [part.one_norm for part in parts], [part.other_norm for part in parts]
        return cls(
            total_norm(one),
            total_norm(other),
            total_norm(part.difference_norm for part in parts),
            cosine_of_parts([part.cosine for part in parts], one, other),
            max((part.largest for part in parts), default=0.0),
            sum(part.changed for part in parts),
            sum(part.elements for part in parts),
            finite=all(part.finite for part in parts),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as plain JSON values."""
        return {**asdict(self), "relative": self.relative}

    def order(self) -> tuple[bool, bool, float]:
        """Return what sorts the largest difference first."""
        return (self.finite, self.relative is not None, -(self.relative or 0.0))


@dataclass(frozen=True)
class TensorDiff:
    """One tensor that both models have.

    Attributes:
        name: its name in the first model.
        other_name: its name in the second one; empty if it is the same.
        layer: the layer that it belongs to.
        shape: its shape.
        dtype: its dtype in the first model.
        other_dtype: its dtype in the second one.
        measures: how far its values are apart.
    """

    name: str
    other_name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    other_dtype: str
    measures: Measures

    def order(self) -> tuple[Any, ...]:
        """Return what sorts the largest difference first, then by name."""
        return (*self.measures.order(), self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as plain JSON values."""
        values = {key: value for key, value in asdict(self).items() if key != "measures"}
        return {**values, "shape": list(self.shape), **self.measures.to_dict()}


@dataclass(frozen=True)
class ReshapedTensor:
    """A tensor that has another shape in the second model."""

    name: str
    shape: tuple[int, ...]
    other_shape: tuple[int, ...]


@dataclass(frozen=True)
class Diff:
    """Difference between two models; `str()` of it is a text.

    Attributes:
        one: the first model: the folder, or the repo with its commit.
        other: the second model.
        renaming: how names of the second model were changed to those of the first one; empty if they were not.
        tensors: the tensors of both models that were read, the largest relative difference first.
        unread: the number of tensors in files with equal digests, which were not read.
        reshaped: the tensors with another shape.
        only_in_one: the names of tensors that the second model lacks.
        only_in_other: the names of tensors that the first model lacks.
        whole: the measures of all tensors that were read together.
    """

    one: str
    other: str
    renaming: str
    tensors: tuple[TensorDiff, ...]
    unread: int
    reshaped: tuple[ReshapedTensor, ...]
    only_in_one: tuple[str, ...]
    only_in_other: tuple[str, ...]
    whole: Measures

    @property
    def identical(self) -> bool:
        """True if both models have the same tensors with the same dtypes and values."""
        differing = any(one.measures.changed or one.dtype != one.other_dtype for one in self.tensors)
        return not (differing or self.reshaped or self.only_in_one or self.only_in_other)

    @property
    def layers(self) -> dict[str, Measures]:
        """The measures of each layer by its name, the largest relative difference first."""
        groups: dict[str, list[Measures]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.layer, []).append(tensor.measures)
        joined = {name: Measures.joined(parts) for name, parts in groups.items()}
        return dict(sorted(joined.items(), key=lambda item: (*item[1].order(), item[0])))

    def to_dict(self, limit: int | None = None) -> dict[str, Any]:
        """Return the difference as plain JSON values.

        Args:
            limit: the number of tensors, those that differ most; all if None.
        """
        return {
            "one": self.one,
            "other": self.other,
            "identical": self.identical,
            "renaming": self.renaming,
            "whole": self.whole.to_dict(),
            "layers": {name: measures.to_dict() for name, measures in self.layers.items()},
            "tensors": [tensor.to_dict() for tensor in self.tensors[:limit]],
            "unread": self.unread,
            "reshaped": [asdict(one) for one in self.reshaped],
            "only_in_one": list(self.only_in_one),
            "only_in_other": list(self.only_in_other),
        }

    def text(self, limit: int | None = SHOWN) -> str:
        """Return the difference as a text: the whole, then the tensors that differ most, by layer.

        Args:
            limit: the number of tensors to show; all if None.
        """
        return "\n".join(self._lines(limit))

    def __str__(self) -> str:
        return self.text()

    def _lines(self, limit: int | None) -> Iterator[str]:
        yield f"{self.one} -> {self.other}"
        if self.renaming:
            yield f"names       {self.renaming}"
        changed = [one for one in self.tensors if one.measures.changed or one.dtype != one.other_dtype]
        equal = len(self.tensors) - len(changed)
        told = [f"{len(changed)} of {counted(len(self.tensors) + self.unread, 'tensor')} differ"]
        told += [f"{equal} are equal"] if equal else []
        told += [f"{self.unread} are in files with equal digests"] if self.unread else []
        yield f"tensors     {', '.join(told)}"
        if self.identical:
            yield "identical   names, shapes, dtypes and values are equal"
            return
        if self.whole.elements:
            yield f"whole       {_measures(self.whole)}"
            yield f"values      {self.whole.changed:,} of {self.whole.elements:,} differ"
        yield from self._names()
        shown = changed if limit is None else changed[:limit]
        if shown:
            yield from self._table(shown)
        if len(changed) > len(shown):
            yield f"{len(changed) - len(shown)} more tensors differ: --limit {len(changed)} shows all"

    def _names(self) -> Iterator[str]:
        for label, names in (("only in 1", self.only_in_one), ("only in 2", self.only_in_other)):
            for name in names[:SHOWN]:
                yield f"{label}   {name}"
            if len(names) > SHOWN:
                yield f"{label}   and {len(names) - SHOWN} more"
        for one in self.reshaped[:SHOWN]:
            yield f"shape       {one.name}: {describe_shape(one.shape)}, then {describe_shape(one.other_shape)}"
        if len(self.reshaped) > SHOWN:
            yield f"shape       of {len(self.reshaped) - SHOWN} more tensors differs"

    def _table(self, shown: Sequence[TensorDiff]) -> Iterator[str]:
        rows = [("tensor", "relative", "cosine", "largest", "dtype")]
        by_layer: dict[str, list[TensorDiff]] = {}
        for one in shown:
            by_layer.setdefault(one.layer, []).append(one)
        for layer, measures in self.layers.items():
            if layer in by_layer:
                rows.append((layer, *_cells(measures), ""))
                rows += [(f"  {one.name}", *_cells(one.measures), _dtypes(one)) for one in by_layer[layer]]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:4], widths[1:4]), row[4]]
            yield "  ".join(cells).rstrip()


def _cells(one: Measures) -> tuple[str, str, str]:
    relative = "not finite" if not one.finite else "-" if one.relative is None else f"{one.relative:.3g}"
    return relative, "-" if one.cosine is None else f"{one.cosine:.6f}", f"{one.largest:.3g}"


def _measures(one: Measures) -> str:
    relative, cosine, largest = _cells(one)
    return f"relative norm of the difference {relative}, cosine {cosine}, largest difference {largest}"


def _dtypes(one: TensorDiff) -> str:
    return one.dtype if one.dtype == one.other_dtype else f"{one.dtype} -> {one.other_dtype}"
