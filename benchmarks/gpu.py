"""The projection and moments on a CUDA device against one CPU core: single matrices, and those of one shape in batches.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --shapes 768x768 768x3072 --batches 1 12 24

A tower has dozens of matrices with equal shorter sides, and one of them does not fill a large device. `hubmerge run`
solves the eigenproblems of a batch of them in one call on the device that accelerate names. Here that is compared with
one matrix after another, with one CPU core, and with what fusion_bench does on the same device. The methods over
moments multiply and solve together: a step, and the reading of the merged matrices by `wudi` and `iso_c`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from checkpoints import task_vector
from measuring import machine, markdown

from hubmerge.linalg import batched_eigenpairs, project, protected_rank
from hubmerge.methods import Absorbed, Method, Norms, method_named
from hubmerge.methods.base import ReadInput, TensorInput

ALPHA = 0.5


def absorb_together(accumulated: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return the kept part of (b, m, n) task vectors as in a run: eigenpairs of all together, the rest one by one."""
    known = batched_eigenpairs(accumulated)
    kept = [
        project(matrix, vector, ALPHA, eigenpairs=pairs).kept
        for matrix, vector, pairs in zip(accumulated, vectors, known, strict=True)
    ]
    return torch.stack(kept)


def full_svd(accumulated: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return the kept part in float32 with all of U and V, as fusion_bench computes it."""
    matrix, change = accumulated.to(torch.float32), vector.to(torch.float32)
    left, values, right = torch.linalg.svd(matrix, full_matrices=True)
    turned = left.T @ change @ right.T
    rank = protected_rank(values.to(torch.float64).cpu(), ALPHA)
    turned[:rank, :rank] = 0.0
    turned.diagonal().zero_()
    return (left @ turned @ right).to(torch.float64)


def moment_inputs(shape: tuple[int, int], count: int, device: torch.device) -> list[TensorInput[object]]:
    """Return what a step over moments gets for some matrices: step 2, after one other task vector."""
    random, method = torch.Generator().manual_seed(0), method_named("wudi")
    inputs = []
    for _ in range(count):
        first, second = (task_vector(shape, random).to(device, torch.float64) for _ in range(2))
        sizes = method.matrix_parts(shape)
        parts = {name: torch.zeros(size, dtype=torch.float64, device=device) for name, size in sizes.items()}
        given = TensorInput[object](torch.zeros_like(first), first, method.Parameters(), 1, parts)
        before = method.absorb_matrix(given)
        inputs.append(replace(given, accumulated=before.accumulated, parts=before.parts, task_vector=second, step=2))
    return inputs


def moment_ways(inputs: Sequence[TensorInput[object]]) -> Mapping[str, Callable[[int], torch.Tensor]]:
    """Return the parts of a step over moments; each takes a number of matrices and returns the result of the first."""
    method = method_named("wudi")
    done = [method.absorb_matrix(one) for one in inputs]

    def step(count: int) -> torch.Tensor:
        return method.absorb_matrices(inputs[:count])[0].parts["products"]

    def read(reader: Method, count: int) -> torch.Tensor:
        return reader.read_matrices([read_input(reader, one) for one in done[:count]])[0]

    return {"step": step, **{name: partial(read, method_named(name)) for name in ("wudi", "iso_c")}}


def read_input(method: Method, absorbed: Absorbed) -> ReadInput[object]:
    """Return what a method reads of one matrix."""
    return ReadInput(absorbed.accumulated, absorbed.parts, method.Parameters(), Norms(1.0, (1.0, 1.0)))


def moment_rows(shape: tuple[int, int], batches: Sequence[int], rounds: int, device: torch.device) -> list[list[str]]:
    """Moments of one shape: a core, and the device in batches of each size; a batch of 1 is one by one."""
    on_core = moment_ways(moment_inputs(shape, 1, torch.device("cpu")))
    on_device = moment_ways(moment_inputs(shape, max(batches), device))
    name, rows = f"{shape[0]} x {shape[1]}", []
    for part, work in on_device.items():
        core, exact = least_seconds(partial(on_core[part], 1), 1, torch.device("cpu"))
        rows.append([name, f"moments, {part}: one CPU core", f"{core * 1e3:.1f}", "1.0", ""])
        for size in sorted({1, *batches}):
            seconds, result = least_seconds(partial(work, size), rounds, device)
            error = float(torch.linalg.vector_norm(result.cpu() - exact) / torch.linalg.vector_norm(exact))
            where = f"moments, {part}: device, batch of {size}"
            rows.append([name, where, f"{seconds / size * 1e3:.1f}", f"{core / (seconds / size):.1f}", f"{error:.0e}"])
    return rows


def least_seconds(work: Callable[[], torch.Tensor], rounds: int, device: torch.device) -> tuple[float, torch.Tensor]:
    """Wall seconds until the device is done, after one round to warm up."""
    result = work()
    seconds = []
    for _ in range(rounds):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def rows_of(shape: tuple[int, int], batches: Sequence[int], rounds: int, device: torch.device) -> list[list[str]]:
    """One shape: a core, the device one by one, the device in batches."""
    random = torch.Generator().manual_seed(0)
    count = max(batches)
    pairs = [
        (
            (task_vector(shape, random) + task_vector(shape, random)).to(torch.float64),
            task_vector(shape, random).to(torch.float64),
        )
        for _ in range(count)
    ]
    accumulated, vectors = (torch.stack(part) for part in zip(*pairs, strict=True))
    on_device = accumulated.to(device), vectors.to(device)
    core, exact = least_seconds(lambda: project(accumulated[0], vectors[0], ALPHA).kept, 1, torch.device("cpu"))
    ways: dict[str, tuple[int, Callable[[], torch.Tensor]]] = {
        "device, full SVD in float32": (1, lambda: full_svd(on_device[0][0], on_device[1][0])),
        "device, one by one": (1, lambda: project(on_device[0][0], on_device[1][0], ALPHA).kept),
    }
    for size in batches:
        ways[f"device, batch of {size}"] = (
            size,
            lambda size=size: absorb_together(on_device[0][:size], on_device[1][:size])[0],  # type: ignore[misc]
        )
    name = f"{shape[0]} x {shape[1]}"
    rows = [[name, "one CPU core", f"{core * 1e3:.1f}", "1.0", ""]]
    for way, (size, work) in ways.items():
        seconds, result = least_seconds(work, rounds, device)
        error = float(torch.linalg.vector_norm(result.cpu() - exact))
        rows.append([name, way, f"{seconds / size * 1e3:.1f}", f"{core / (seconds / size):.1f}", f"{error:.0e}"])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or say that there is no device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["768x768", "768x3072", "1024x1024", "1024x4096"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 12, 24])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda", help="`cpu` tries the script itself")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device: nothing to measure here")
    torch.set_num_threads(1)
    device = torch.device(options.device)
    rows = []
    for text in options.shapes:
        height, width = sorted(map(int, text.split("x")))
        rows += rows_of((height, width), options.batches, options.rounds, device)
        rows += moment_rows((height, width), options.batches, options.rounds, device)
    print(markdown(["shape", "where", "ms a matrix", "times a core", "error"], rows))
    about = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"\n{about}; {machine()}")


if __name__ == "__main__":
    main()
