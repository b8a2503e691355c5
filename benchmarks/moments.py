"""CPU seconds per step of methods over moments against OPCM, the size of their states, and the error of float32.

    OMP_NUM_THREADS=1 python benchmarks/moments.py

One layer of a CLIP vision tower has four square matrices and two of the perceptron; a step does the same work for every
layer. Both sides are measured in turn on the same random task vectors, in CPU seconds of one thread, and the least of
each is kept. OPCM is measured at step 3, when its accumulated delta has full rank.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from measuring import machine, markdown

from hubmerge.linalg import frobenius_norm
from hubmerge.methods import Method, Norms, method_named
from hubmerge.methods.base import Absorbed, ReadInput, TensorInput

SHAPES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "ViT-B/32": ((768, 768),) * 4 + ((3072, 768), (768, 3072)),
    "ViT-L/14": ((1024, 1024),) * 4 + ((4096, 1024), (1024, 4096)),
}
"""Weight matrices of one layer of the vision tower."""

OTHERS: Mapping[str, float] = {"ViT-B/32": 0.03, "ViT-L/14": 0.01}
"""Share of the tower's parameters outside of its layers' matrices."""

STEPS = 3


@dataclass(frozen=True)
class Contestant:
    """A row of the table."""

    name: str
    method: str
    parameters: Mapping[str, object]


OPCM = Contestant("opcm", "opcm", {})
CONTESTANTS = (
    OPCM,
    Contestant("opcm, diagonal: keep", "opcm", {"diagonal": "keep"}),
    Contestant("moments (wudi, iso_c, ...)", "wudi", {}),
    Contestant("moments, precision: float32", "wudi", {"precision": "float32"}),
)


def task_vector(shape: tuple[int, int], seed: int) -> torch.Tensor:
    """Return a random task vector."""
    generator = torch.Generator().manual_seed(seed)
    return 1e-3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def absorbed(method: Method, parameters: object, shape: tuple[int, int], steps: int) -> Absorbed:
    """Return the state of a matrix after some steps."""
    parts = {name: torch.zeros(size, dtype=torch.float64) for name, size in method.matrix_parts(shape).items()}
    state = Absorbed(torch.zeros(shape, dtype=torch.float64), parts)
    for step in range(1, steps + 1):
        vector = task_vector(shape, step)
        state = method.absorb_matrix(TensorInput(state.accumulated, vector, parameters, step, state.parts))
    return state


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def layer_seconds(shapes: Sequence[tuple[int, int]], repeat: int) -> dict[str, float]:
    """Return the least CPU seconds of one step over one layer, by contestant."""
    totals = dict.fromkeys((one.name for one in CONTESTANTS), 0.0)
    for shape in dict.fromkeys(shapes):
        works: dict[str, Callable[[], object]] = {}
        for one in CONTESTANTS:
            method = method_named(one.method)
            parameters = method.Parameters.model_validate(one.parameters)
            before = absorbed(method, parameters, shape, STEPS - 1)
            given = TensorInput(before.accumulated, task_vector(shape, STEPS), parameters, STEPS, before.parts)
            works[one.name] = partial(method.absorb_matrix, given)
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(repeat):
            for name, work in works.items():
                seconds[name].append(cpu_seconds(work))
        for name, values in seconds.items():
            totals[name] += min(values) * shapes.count(shape)
    return totals


def state_share(name: str) -> float:
    """Return the elements of a state over those of the tower."""
    method, shapes = method_named("wudi"), SHAPES[name]
    matrices = sum(rows * columns for rows, columns in shapes)
    parts = sum(
        rows * columns + sum(torch.Size(size).numel() for size in method.matrix_parts((rows, columns)).values())
        for rows, columns in shapes
    )
    return (1.0 - OTHERS[name]) * parts / matrices + OTHERS[name]


def float32_errors(shape: tuple[int, int]) -> dict[str, float]:
    """Return the distance of merged deltas from those of float64, over their length, by method."""
    errors = {}
    for name in ("wudi", "iso_c", "sums"):
        method = method_named(name)
        merged = []
        for precision in ("float64", "float32"):
            parameters = method.Parameters.model_validate({"precision": precision})
            state = absorbed(method, parameters, shape, 8)
            norms = Norms(frobenius_norm(state.accumulated), (1.0,) * 8)
            merged.append(method.read_matrix(ReadInput(state.accumulated, state.parts, parameters, norms)))
        errors[name] = frobenius_norm(merged[1] - merged[0]) / frobenius_norm(merged[0])
    return errors


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=[*SHAPES], default=[*SHAPES])
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name in options.models:
        seconds = layer_seconds(SHAPES[name], options.repeat)
        rows += [[name, one, f"{value:.3f}", f"{value / seconds[OPCM.name]:.2f}"] for one, value in seconds.items()]
    print(markdown(["tower", "step", "CPU s per layer", "of opcm"], rows), "\n")
    sizes = [[name, f"{state_share(name):.2f}", f"{2 * state_share(name):.2f}"] for name in options.models]
    print(markdown(["tower", "state in float32, of the model's bytes", "in float64"], sizes), "\n")
    errors = float32_errors((768, 768))
    print(markdown(["method", "error of precision: float32"], [[name, f"{e:.0e}"] for name, e in errors.items()]), "\n")
    print(machine())


if __name__ == "__main__":
    main()
