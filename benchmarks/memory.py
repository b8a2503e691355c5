"""Peak memory of a merge while the stream and the model grow and the largest tensor stays as it is.

    python benchmarks/memory.py                          # the table
    python benchmarks/memory.py --method ties --workers 4

Every row is a process of its own, which merges the stream step by step and writes the merged model. "growth" is the
highest resident memory during the merge less what was resident before it; "copies" is the same in float64 copies of
the largest tensor. One copy is what the accumulated delta of that tensor takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubmerge.checkpoints import AlignedCheckpoint, Checkpoint, MergePlan

ROWS, COLUMNS = 64, 16384


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the highest since the process began), from Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def names(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a model of one size of matrix, with biases."""
    for layer in range(layers):
        yield f"layers.{layer}.weight", (ROWS, COLUMNS)
        yield f"layers.{layer}.bias", (ROWS,)


def write_models(folder: Path, layers: int) -> None:
    """Write a base model and two checkpoints in float32; a stream alternates between them."""
    import torch

    from hubmerge.checkpoints import SafetensorsWriter, TensorSpec

    specs = [TensorSpec(name, torch.float32, shape) for name, shape in names(layers)]
    for number, label in enumerate(("base", "even", "odd")):
        random = torch.Generator().manual_seed(number)
        with SafetensorsWriter(folder / label / "model.safetensors", specs) as writer:
            for spec in specs:
                writer.write(spec.name, torch.randn(spec.shape, generator=random))
            writer.commit()


def planned(folder: Path, layers: int) -> tuple[Checkpoint, list[AlignedCheckpoint], MergePlan]:
    """Return the base model, the two checkpoints, and the plan of merging them."""
    from hubmerge.checkpoints import MatrixRule, align, make_plan, open_checkpoint

    base = open_checkpoint(folder / "base")
    pair = [align(base, open_checkpoint(folder / label)) for label in ("even", "odd")]
    matrices = frozenset(name for name, shape in names(layers) if len(shape) == 2)
    plan = make_plan(base, pair, MatrixRule(matrices, "all matrices of the benchmark", {}))
    return base, pair, plan


def merge(folder: Path, method_name: str, models: int, layers: int, workers: int) -> dict[str, int]:
    """Merge a stream and return the memory it took, in bytes."""
    from hubmerge.executor import ExecutorContext, Merge, StepInput, merge_steps, write_merged
    from hubmerge.executor.state import MergeState
    from hubmerge.methods import method_named

    base, pair, plan = planned(folder, layers)
    method = method_named(method_name)
    parameters = method.Parameters()
    before = resident_bytes("VmRSS")
    state: MergeState | None = None
    for step in range(1, models + 1):
        previous, target = state, folder / f"state-{step}"
        incoming = StepInput(pair[step % 2], lambda _: parameters)
        context = ExecutorContext(workers=workers)
        state, _ = merge_steps(Merge(base, method, plan), [incoming], previous, target, context=context)
        write_merged(base, state, plan, folder / "merged", context=context)
        if previous is not None:
            shutil.rmtree(previous.folder)
    return {
        "before": before,
        "growth": resident_bytes("VmHWM") - before,
        "largest": plan.largest.elements * 8,
        "model": plan.written_bytes,
    }


def measure(method: str, models: int, layers: int, workers: int) -> dict[str, int]:
    """Return the result of `merge` in a new process."""
    with tempfile.TemporaryDirectory(prefix="hubmerge-memory-") as folder:
        # The models are written by this process, so that the peak of the new one is the merge's own.
        write_models(Path(folder), layers)
        command = [sys.executable, __file__, "--merge", method, str(models), str(layers), str(workers), folder]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, int] = json.loads(done.stdout)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="opcm")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8, 32])
    options = parser.parse_args(argv)
    print(f"{options.method}, {options.workers} workers, largest tensor {ROWS} x {COLUMNS}, float32 files")
    print(f"{'models':>6} {'layers':>6} {'model MB':>9} {'before MB':>10} {'growth MB':>10} {'copies':>7}")
    for layers in options.layers:
        for models in options.models:
            row = measure(options.method, models, layers, options.workers)
            megabytes = {key: value / 1e6 for key, value in row.items()}
            print(
                f"{models:>6} {layers:>6} {megabytes['model']:>9.0f} {megabytes['before']:>10.0f} "
                f"{megabytes['growth']:>10.0f} {row['growth'] / row['largest']:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--merge"]:
        method_name, model_count, layer_count, worker_count, where = sys.argv[2:]
        print(json.dumps(merge(Path(where), method_name, int(model_count), int(layer_count), int(worker_count))))
    else:
        main()
