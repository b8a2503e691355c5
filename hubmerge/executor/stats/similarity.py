"""Similarity of task vectors, from the sketches in the state; no earlier checkpoint is read again.

The state has a bounded number of sketches: those of the last `RECENT_STEPS` steps tensor by tensor, and one sketch of
the whole task vector for each of the `EARLIER_STEPS` steps before them. Steps before these are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from hubmerge.checkpoints import TensorSpec
from hubmerge.checkpoints.matching.components import layers_of
from hubmerge.executor.state import State
from hubmerge.executor.stats.stats import AllCosines, Similarity, TensorStats
from hubmerge.linalg import SKETCH_SIZE, group_cosines, join_sketches, sketch_cosine

SKETCH_PREFIX = "sketch/"
EARLIER_KEY = f"{SKETCH_PREFIX}earlier"
OUTSIDE_LAYERS = "outside the layers"

RECENT_STEPS = 4
"""Number of steps whose sketches are kept tensor by tensor, for a cosine of each layer."""

EARLIER_STEPS = 60
"""Number of steps before these of which one sketch of the whole task vector is kept."""


@dataclass(frozen=True)
class Sketches:
    """Sketches of the task vectors that a state has.

    Attributes:
        recent: of the last steps, by step: a row for each merged tensor, its norm first, float32.
        earlier: of the steps before them, by step: norm and sketch of the whole task vector in one row.
        older_steps: last step of a stream that version 0.1.0 began: up to it, the sketches of all steps are kept.
    """

    recent: Mapping[int, torch.Tensor] = field(default_factory=dict)
    earlier: Mapping[int, torch.Tensor] = field(default_factory=dict)
    older_steps: int = 0

    @classmethod
    def of(cls, previous: State | None, older_steps: int = 0) -> Sketches:
        """Read the sketches of a state; steps merged without sketches are left out."""
        if previous is None:
            return cls(older_steps=older_steps)
        keys = {key for key in previous.manifest.parts if key.startswith(SKETCH_PREFIX)} - {EARLIER_KEY}
        steps = sorted(int(key.removeprefix(SKETCH_PREFIX)) for key in keys)
        recent = {step: part for step in steps if (part := previous.read_part(sketch_key(step))) is not None}
        joined = previous.read_part(EARLIER_KEY)
        rows = [] if joined is None else [(int(row[0]), row[1:]) for row in joined]
        return cls(recent, {step: row for step, row in rows if step}, older_steps)

    def added(self, step: int, rows: torch.Tensor, names: Sequence[str]) -> Sketches:
        """Return the sketches after one more step, whose sketches are `rows` of the tensors with these names."""
        recent, earlier = {**self.recent, step: rows}, dict(self.earlier)
        if step > self.older_steps:
            for old in sorted(recent)[:-RECENT_STEPS]:
                earlier[old] = joined_row(recent.pop(old), names)
        kept = sorted(earlier)[-EARLIER_STEPS:]
        return Sketches(recent, {old: earlier[old] for old in kept}, self.older_steps)

    def parts(self) -> dict[str, torch.Tensor]:
        """Return the parts of the state that hold the sketches."""
        parts = {sketch_key(step): rows for step, rows in self.recent.items()}
        if self.earlier:
            joined = torch.zeros((EARLIER_STEPS, 2 + SKETCH_SIZE), dtype=torch.float32)
            for place, (step, row) in enumerate(sorted(self.earlier.items())):
                joined[place, 0], joined[place, 1:] = step, row
            parts[EARLIER_KEY] = joined
        return parts

    def specs_after(self, steps: Sequence[int], tensors: int) -> list[TensorSpec]:
        """Return the tensors of `parts` once these steps are added, for a model of so many merged tensors."""
        recent = [*self.recent, *steps]
        joins = steps[-1] > self.older_steps and len(recent) > RECENT_STEPS
        return sketch_specs(recent[-RECENT_STEPS:] if joins else recent, tensors, joined=joins or bool(self.earlier))


def joined_sketches(states: Sequence[State], names: Sequence[str]) -> Sketches:
    """Return the sketches of several streams whose steps follow one another, as if they were one stream.

    Args:
        states: the states after their last steps, in order.
        names: the names of the merged tensors, in the order of the rows.
    """
    rows: dict[int, torch.Tensor] = {}
    joined: dict[int, torch.Tensor] = {}
    begin = 0
    for state in states:
        own = Sketches.of(state)
        rows |= {begin + step: values for step, values in own.recent.items()}
        joined |= {begin + step: values for step, values in own.earlier.items()}
        begin += state.step
    recent = {step: rows[step] for step in sorted(rows) if step > begin - RECENT_STEPS}
    joined |= {step: joined_row(values, names) for step, values in rows.items() if step not in recent}
    return Sketches(recent, {step: joined[step] for step in sorted(joined)[-EARLIER_STEPS:]})


def sketch_key(step: int) -> str:
    """Return the key in the state of the sketches of a step's task vector."""
    return f"{SKETCH_PREFIX}{step}"


def sketch_specs(steps: Sequence[int], tensors: int, *, joined: bool) -> list[TensorSpec]:
    """Return the tensors for the sketches of steps, with that for whole task vectors if there are some."""
    specs = [TensorSpec(sketch_key(step), torch.float32, (tensors, 1 + SKETCH_SIZE)) for step in steps]
    if joined:
        specs.append(TensorSpec(EARLIER_KEY, torch.float32, (EARLIER_STEPS, 2 + SKETCH_SIZE)))
    return specs


def largest_sketches(steps: int, tensors: int) -> int:
    """Return the size in bytes of the sketches of a stream with so many steps."""
    recent = range(1, min(steps, RECENT_STEPS) + 1)
    return sum(spec.nbytes for spec in sketch_specs(recent, tensors, joined=steps > RECENT_STEPS))


def joined_row(rows: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
    """Return norm and sketch of a whole task vector in one row, from those of its tensors."""
    norm = math.hypot(*rows[:, 0].tolist())
    return torch.cat([torch.tensor([norm], dtype=torch.float32), join_sketches(rows[:, 1:], names)])


def compare_sketches(rows: torch.Tensor, sketches: Sketches, tensors: Sequence[TensorStats]) -> tuple[Similarity, ...]:
    """Return cosines between a task vector and each earlier one; for recent steps also those of each layer.

    `rows` and the sketches of recent steps have a row for each of `tensors`.
    """
    names = [tensor.name for tensor in tensors]
    layers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        layers.setdefault(layer_of(name), []).append(number)
    groups = [list(range(len(tensors))), *layers.values()]
    found = _compare_whole(rows, sketches.earlier, names) if sketches.earlier else []
    for step, others in sorted(sketches.recent.items()):
        first, second = rows[:, 0].tolist(), others[:, 0].tolist()
        whole, *each = group_cosines(rows[:, 1:], others[:, 1:], first, second, groups)
        found.append(Similarity(step, _rounded(whole), {n: _rounded(c) for n, c in zip(layers, each, strict=True)}))
    return tuple(found)


def compare_all(rows: torch.Tensor, sketches: Sketches, step: int, names: Sequence[str]) -> AllCosines:
    """Return the cosines between the task vectors of a step and of all earlier ones that have sketches.

    Args:
        rows: the sketches of the step.
        sketches: those before it.
        step: its number.
        names: the names of the merged tensors.
    """
    whole = {**sketches.earlier, **{one: joined_row(values, names) for one, values in sketches.recent.items()}}
    whole[step] = joined_row(rows, names)
    steps = tuple(sorted(whole))
    joined = torch.stack([whole[one] for one in steps]).to(torch.float64)
    unit = joined[:, 1:] / joined[:, :1]
    cosines = (unit @ unit.T).clamp(-1.0, 1.0)
    table = [[_rounded(value) for value in line] for line in cosines.tolist()]
    return AllCosines(steps, tuple(tuple(line[:place]) for place, line in enumerate(table)))


def _compare_whole(rows: torch.Tensor, earlier: Mapping[int, torch.Tensor], names: Sequence[str]) -> list[Similarity]:
    row = joined_row(rows, names)
    cosines = (
        (step, sketch_cosine(row[1:], other[1:], float(row[0]), float(other[0])))
        for step, other in sorted(earlier.items())
    )
    return [Similarity(step, _rounded(cosine), {}) for step, cosine in cosines]


def layer_of(name: str) -> str:
    """Return the layer of a tensor: its name up to the first number, or `OUTSIDE_LAYERS`.

    >>> layer_of("vision_model.encoder.layers.3.mlp.fc1.weight")
    'vision_model.encoder.layers.3'
    """
    return next(layers_of(name), OUTSIDE_LAYERS)


def _rounded(cosine: float | None) -> float | None:
    # Sketches are precise to two or three digits.
    return None if cosine is None or not math.isfinite(cosine) else round(cosine, 4)
