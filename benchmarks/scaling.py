"""Cost of a step: bytes and FLOP for models of several sizes, and the time on this machine.

    python benchmarks/scaling.py                     the table of docs/scaling.md, from the shapes of the models
    python benchmarks/scaling.py --rates             seconds and FLOP/s of one update, by shape, on the CPU
    python benchmarks/scaling.py --rates --device cuda

Weights are never made: models are built on the meta device. Rates are per thread on the CPU, per device elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator

import torch

from hubmerge.checkpoints import PlannedTensor, TensorInfo, weight_matrices
from hubmerge.executor.parallel.processes import divide_work
from hubmerge.methods import Opcm, TensorInput

SHAPES = ((768, 768), (1024, 4096), (4096, 4096))


def models() -> Iterator[tuple[str, object]]:
    """Models with random weights of no size, by name."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    common = {"vocab_size": 128_256, "num_key_value_heads": 8, "tie_word_embeddings": False}
    eight = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
    seventy = {"hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80, "num_attention_heads": 64}
    with torch.device("meta"):
        yield "CLIP ViT-L/14 tower, float32", CLIPVisionModel(CLIPVisionConfig(patch_size=14, **large))
        yield "language model, 8B, bfloat16", LlamaForCausalLM(LlamaConfig(**common, **eight)).to(torch.bfloat16)
        yield "language model, 70B, bfloat16", LlamaForCausalLM(LlamaConfig(**common, **seventy)).to(torch.bfloat16)


def planned(model: torch.nn.Module) -> list[PlannedTensor]:
    """Return the planned tensors of a merge of the whole model."""
    infos = {
        name: TensorInfo(name, tuple(value.shape), value.dtype, "", 0, value.nbytes)
        for name, value in model.named_parameters()
    }
    rule = weight_matrices({**model.config.to_dict(), "architectures": [type(model).__name__]}, infos)
    return [
        PlannedTensor(
            name,
            info.shape,
            info.dtype,
            info.dtype,
            "merge-matrix" if rule.is_matrix(name) else "merge-other",
            "",
        )
        for name, info in infos.items()
    ]


def table() -> None:
    """Print bytes and FLOP of one step of OPCM, and how evenly the work divides."""
    print("| model | parameters | state | read | written | FLOP | load of the busiest of 2, 8, 16, 64 |")
    print("|---|---|---|---|---|---|---|")
    for name, model in models():
        tensors = planned(model)
        count = sum(tensor.elements for tensor in tensors)
        size = sum(tensor.elements * tensor.dtype.itemsize for tensor in tensors)
        costs = [tensor.flops for tensor in tensors]
        loads = []
        for processes in (2, 8, 16, 64):
            busiest = max(sum(costs[index] for index in share) for share in divide_work(costs, processes))
            loads.append(f"{busiest / (sum(costs) / processes):.2f}")
        # Both passes read the base model and a state; the first the checkpoint as well.
        read, written = 3 * size + 2 * 8 * count, 8 * count + size
        print(
            f"| {name} | {count / 1e9:.3g} G | {8 * count / 1e9:.3g} GB | {read / 1e9:.3g} GB | {written / 1e9:.3g} GB "
            f"| {sum(costs):.2g} | {', '.join(loads)} |"
        )


def rates(device: torch.device) -> None:
    """Print the speed of one update of an accumulator that is as large as the task vector, and that of SHA-256."""
    torch.set_num_threads(1)
    method, parameters = Opcm(), Opcm.Parameters()
    print("| shape | seconds | GFLOP/s |")
    print("|---|---|---|")
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(1)
        accumulated, vector = (
            torch.randn(shape, generator=generator, dtype=torch.float64).to(device) for _ in range(2)
        )
        tensor = PlannedTensor("", shape, torch.float64, torch.float64, "merge-matrix", "")
        best = float("inf")
        for _ in range(3 if max(shape) < 4096 else 2):
            started = _now(device)
            method.absorb_matrix(TensorInput(accumulated, vector, parameters, step=2))
            best = min(best, _now(device) - started)
        print(f"| {shape[0]} x {shape[1]} | {best:.3f} | {tensor.flops / best / 1e9:.1f} |", flush=True)
    data = bytes(1 << 28)
    started = time.thread_time()
    hashlib.sha256(data).hexdigest()
    print(f"\nSHA-256: {len(data) / (time.thread_time() - started) / 1e9:.2f} GB/s")


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.thread_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    rates(options.device) if options.rates else table()
