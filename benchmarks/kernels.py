"""One projection of one matrix: full SVDs against the kernels of hubmerge, in CPU seconds on one thread.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --shapes 768x768 1024x4096 --no-svd

"error" is the distance of what is kept from the float64 SVD's result, over the length of the task vector; with
`--no-svd`, from the float64 kernel's. The least of some rounds, since other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from checkpoints import task_vector
from measuring import machine, markdown

from hubmerge.executor.parallel.allocation import return_freed_memory
from hubmerge.linalg import project

ALPHA = 0.5
SHAPES = ("768x768", "768x3072", "3072x768", "1024x4096")


def with_svd(accumulated: torch.Tensor, vector: torch.Tensor, *, keep: bool) -> torch.Tensor:
    """Return the kept part by the literal formula with a square V, in the dtype of the inputs."""
    u, s, vh = torch.linalg.svd(accumulated, full_matrices=True)
    rank = int((torch.cumsum(s, 0) < ALPHA * s.sum()).sum()) + 1
    projected = u.T @ vector @ vh.T
    if not keep:
        projected.diagonal().zero_()
    projected[:rank, :rank] = 0.0
    return u @ projected @ vh


def least_seconds(work: Callable[[], torch.Tensor], rounds: int) -> tuple[float, torch.Tensor]:
    """CPU seconds of this thread, and what `work` returns."""
    seconds = []
    for _ in range(rounds):
        begin = time.thread_time()
        result = work()
        seconds.append(time.thread_time() - begin)
    return min(seconds), result


def kernels(accumulated: torch.Tensor, vector: torch.Tensor, *, svd: bool) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the kernels by name; names say which ones keep the diagonal."""
    single = accumulated.to(torch.float32), vector.to(torch.float32)
    found: dict[str, Callable[[], torch.Tensor]] = {}
    if svd:
        found["full SVD, float32"] = lambda: with_svd(*single, keep=False)
        found["full SVD, float64"] = lambda: with_svd(accumulated, vector, keep=False)
    found["hubmerge"] = lambda: project(accumulated, vector, ALPHA).kept
    found["hubmerge, keep"] = lambda: project(accumulated, vector, ALPHA, diagonal="keep").kept
    found["hubmerge, keep, float32"] = lambda: (
        project(accumulated, vector, ALPHA, diagonal="keep", precision="float32").kept
    )
    return found


def rows_of(shape: tuple[int, int], rounds: int, *, svd: bool) -> list[list[str]]:
    """All kernels on one shape: two task vectors are merged already, a third one comes."""
    random = torch.Generator().manual_seed(0)
    first, second, vector = (task_vector(shape, random).to(torch.float64) for _ in range(3))
    accumulated = first + second
    measured = {name: least_seconds(work, rounds) for name, work in kernels(accumulated, vector, svd=svd).items()}
    exact = {
        True: with_svd(accumulated, vector, keep=True) if svd else measured["hubmerge, keep"][1],
        False: measured["full SVD, float64"][1] if svd else measured["hubmerge"][1],
    }
    reference = measured["hubmerge"][0]
    return [
        [
            f"{shape[0]} x {shape[1]}",
            name,
            f"{seconds:.3f}",
            f"{seconds / reference:.2f}",
            f"{float(torch.linalg.vector_norm(result - exact['keep' in name])):.0e}",
        ]
        for name, (seconds, result) in measured.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-svd", action="store_true", help="leave the full SVDs out: they take most of the time")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    return_freed_memory()
    rows = []
    for text in options.shapes:
        height, width = map(int, text.split("x"))
        rows += rows_of((height, width), options.rounds, svd=not options.no_svd)
    print(markdown(["shape", "kernel", "CPU s", "of hubmerge", "error"], rows))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
