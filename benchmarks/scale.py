"""Models of real size: the plan of an 8B Llama from headers alone, and an element-wise merge of a 1.2B one.

    python benchmarks/scale.py                      # both
    python benchmarks/scale.py plan                 # 8B: sparse files on the embedded Hub, nothing is downloaded
    python benchmarks/scale.py merge --folder /disk # 1.2B in bfloat16: random values, 28 GB of disk

The plan is measured with compiled modules of hubmerge, as pip installs it. The merge is compared with the disk: the
same bytes read and written by a plain program, just before and just after.
All files are removed at the end.
"""

from __future__ import annotations

import argparse
import base64
import compileall
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import REPOSITORY, hubmerge_environment, machine, markdown, measure

sys.path.insert(0, str(REPOSITORY))

if TYPE_CHECKING:
    from hubmerge.checkpoints import TensorSpec
    from hubmerge.localhub import LocalHub

COMMON = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "dtype": "bfloat16",
}
LLAMA_8B = {**COMMON, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
LLAMA_1B = {**COMMON, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
LLAMA_1B |= {"tie_word_embeddings": True, "head_dim": 64}
SHARD_BYTES, BLOCK = 5_000_000_000, 64 << 20

PROGRAM = """
import json, sys
from pathlib import Path
from hubmerge.cli.main import main
status = main(sys.argv[2:])
io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
found = {"read": int(io["rchar"]), "written": int(io["wchar"]), "peak": int(peak.split()[1]) * 1024}
Path(sys.argv[1]).write_text(json.dumps(found))
sys.exit(status)
"""


def specs_of(config: dict[str, Any]) -> list[TensorSpec]:
    """Return the tensors of a Llama in bfloat16."""
    import torch

    from hubmerge.checkpoints import TensorSpec

    size, wide, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = size // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, size)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes |= {f"{prefix}.{name}.weight": (size,) for name in ("input_layernorm", "post_attention_layernorm")}
        attention = {"q_proj": (size, size), "k_proj": (keys, size), "v_proj": (keys, size), "o_proj": (size, size)}
        shapes |= {f"{prefix}.self_attn.{name}.weight": shape for name, shape in attention.items()}
        mlp = {"gate_proj": (wide, size), "up_proj": (wide, size), "down_proj": (size, wide)}
        shapes |= {f"{prefix}.mlp.{name}.weight": shape for name, shape in mlp.items()}
    shapes["model.norm.weight"] = (size,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (words, size)
    return [TensorSpec(name, torch.bfloat16, shape) for name, shape in shapes.items()]


def write_sparse(folder: Path, config: dict[str, Any]) -> list[Path]:
    """Write shards that have headers and no values, which take no room where the file system allows it."""
    from hubmerge.checkpoints import plan_shards, write_index
    from hubmerge.checkpoints.formats.write_header import lay_out

    folder.mkdir(parents=True)
    shards = plan_shards(specs_of(config), SHARD_BYTES)
    for shard in shards:
        header, _ = lay_out(shard.specs, {"format": "pt"})
        with (folder / shard.file).open("wb") as stream:
            stream.write(header)
            stream.truncate(len(header) + shard.nbytes)
    write_index(folder, shards)
    (folder / "config.json").write_text(json.dumps(config))
    return [folder / shard.file for shard in shards]


def write_random(folder: Path, config: dict[str, Any], seed: int) -> None:
    """Write a model with random values; a checkpoint (seed above 0) differs from the base model by a hundredth."""
    import torch

    from hubmerge.checkpoints import SafetensorsWriter

    folder.mkdir(parents=True)
    base, change = (torch.Generator().manual_seed(number) for number in (0, seed))
    with SafetensorsWriter(folder / "model.safetensors", specs_of(config), digests=False) as writer:
        for spec in specs_of(config):
            values = torch.randn(spec.shape, generator=base) * 0.02
            if seed:
                values += torch.randn(spec.shape, generator=change) * 0.0002
            writer.write(spec.name, values.to(spec.dtype))
        writer.commit()
    (folder / "config.json").write_text(json.dumps(config))


def push_sparse(hub: LocalHub, root: Path, repo: str, files: Sequence[Path]) -> None:
    """Put sparse files into the store of an embedded Hub under made-up digests, and commit them to a repo."""
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.endpoint, token=hub.token).create_repo(repo)
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "add the model"}}]
    for file in files:
        digest = hashlib.sha256(f"{repo}/{file.name}".encode()).hexdigest()
        place = root / "objects" / "lfs" / digest[:2] / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        value = {"path": file.name, "algo": "sha256", "oid": digest, "size": file.stat().st_size}
        file.rename(place)
        lines.append({"key": "lfsFile", "value": value})
    for name in ("config.json", "model.safetensors.index.json"):
        content = base64.b64encode((files[0].parent / name).read_bytes()).decode()
        lines.append({"key": "file", "value": {"path": name, "content": content, "encoding": "base64"}})
    request = urllib.request.Request(  # noqa: S310 - the embedded Hub
        f"{hub.endpoint}/api/models/{repo}/commit/main",
        data="\n".join(map(json.dumps, lines)).encode(),
        headers={"Authorization": f"Bearer {hub.token}", "Content-Type": "application/x-ndjson"},
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310 - the embedded Hub
        response.read()


def installed(folder: Path) -> Path:
    """Return a copy of hubmerge with compiled modules, as pip makes them; a checkout may be compiled at every start."""
    for package in ("hubmerge", "merge_recipes"):
        shutil.copytree(REPOSITORY / package, folder / package)
    compileall.compile_dir(folder, quiet=1)
    return folder


def plan_8b(folder: Path, checkpoints: int) -> str:
    """Return a table of the time of `hubmerge plan` for an 8B model on the embedded Hub."""
    from hubmerge.localhub import LocalHub

    hub = LocalHub(folder / "hub").start()
    try:
        repos = ["local/base", *(f"local/tuned-{number}" for number in range(1, checkpoints + 1))]
        for repo in repos:
            push_sparse(hub, folder / "hub", repo, write_sparse(folder / repo, LLAMA_8B))
        recipe = folder / "recipe.json"
        models = [{"model": repo} for repo in repos[1:]]
        environment = hubmerge_environment(folder / "cache") | {
            "PYTHONPATH": str(installed(folder / "installed")),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "0",
        }
        rows = []
        for method in ("weight_average", "opcm"):
            keys = {"merge_method": method, "base_model": repos[0], "models": models, "fetch": "ranges"}
            recipe.write_text(json.dumps(keys))
            command = [sys.executable, "-m", "hubmerge", "plan", recipe, "--quiet"]
            for label in ("the first time", "again"):
                cost = measure(command, cpus=2, environment=environment, log=folder / "logs" / f"{method}.txt")
                rows.append([f"{method}, {label}", f"{cost.wall_seconds:.1f}", f"{cost.cpu_seconds:.1f}"])
                rows[-1].append(f"{cost.peak_megabytes:.0f}")
        return markdown([f"plan of 8B and {checkpoints} checkpoints", "wall s", "CPU s", "peak MB"], rows)
    finally:
        hub.stop()


def forget(folder: Path) -> None:
    """Drop the files below a folder from the memory of the operating system."""
    os.sync()
    for path in folder.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def read_rate(folder: Path) -> float:
    """Return the bytes a second of a plain program that reads the models one after another."""
    forget(folder)
    count, begin = 0, time.perf_counter()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(BLOCK):
                count += len(block)
    return count / (time.perf_counter() - begin)


def write_rate(folder: Path, size: int) -> float:
    """Return the bytes a second of a plain program that writes a file and flushes it to the disk."""
    block, place = os.urandom(BLOCK), folder / "plain"
    begin = time.perf_counter()
    with place.open("wb", buffering=0) as stream:
        for _ in range(size // BLOCK):
            stream.write(block)
        os.fsync(stream.fileno())
    rate = size // BLOCK * BLOCK / (time.perf_counter() - begin)
    place.unlink()
    return rate


def merge_1b(folder: Path, checkpoints: int) -> str:
    """Return a table that compares element-wise merges of a 1.2B model with the disk."""
    models = folder / "models"
    for seed in range(checkpoints + 1):
        write_random(models / str(seed), LLAMA_1B, seed)
    environment = hubmerge_environment(folder / "cache")
    rows = [
        list(_merged(folder, models, method, checkpoints, environment))
        for method in ("weight_average", "task_arithmetic")
    ]
    header = ["method", "wall s", "CPU s", "read GB", "written GB", "disk s", "of the disk", "peak MB", "plan says MB"]
    return markdown(header, rows)


def _merged(folder: Path, models: Path, method: str, checkpoints: int, environment: dict[str, str]) -> Iterator[str]:
    recipe, result, log = folder / f"{method}.json", folder / "result.json", folder / "logs" / f"{method}.txt"
    streams = [{"model": str(models / str(seed)), "name": f"tuned-{seed}"} for seed in range(1, checkpoints + 1)]
    recipe.write_text(json.dumps({"merge_method": method, "base_model": str(models / "0"), "models": streams}))
    # The plan hashes the local folders, as a first run does.
    plan = [sys.executable, "-m", "hubmerge", "plan", recipe, "--json"]
    measure(plan, cpus=2, environment=environment, log=log)
    expected = _memory_in(log)
    before = read_rate(models), write_rate(folder, 2 << 30)
    forget(models)
    run = ["run", recipe, "--work-dir", folder / "work", "--quiet"]
    cost = measure([sys.executable, "-c", PROGRAM, result, *run], cpus=2, environment=environment, log=log)
    shutil.rmtree(folder / "work")
    after = read_rate(models), write_rate(folder, 2 << 30)
    found = json.loads(result.read_text())
    reading, writing = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    disk = found["read"] / reading + found["written"] / writing
    yield from (method, f"{cost.wall_seconds:.0f}", f"{cost.cpu_seconds:.0f}", f"{found['read'] / 1e9:.1f}")
    yield from (f"{found['written'] / 1e9:.1f}", f"{disk:.0f}", f"{cost.wall_seconds / disk:.2f}")
    yield from (f"{found['peak'] / 1e6:.0f}", f"{expected / 1e6:.0f}")
    print(f"{method}: the disk reads {reading / 1e6:.0f} and writes {writing / 1e6:.0f} MB/s", file=sys.stderr)


def _memory_in(log: Path) -> int:
    """Return the memory that a plan states, from its output with --json."""
    for line in log.read_text().splitlines():
        if line.startswith("{") and "memory_bytes" in line:
            return int(_find(json.loads(line), "memory_bytes"))
    raise LookupError(f"no memory_bytes in {log}")


def _find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key in value:
            return value[key]
        return next((found for one in value.values() if (found := _find(one, key)) is not None), None)
    return None


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plan", "merge", "all"), nargs="?", default="all")
    parser.add_argument("--folder", type=Path, default=None, help="folder on the disk to measure")
    parser.add_argument("--checkpoints", type=int, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=options.folder))
    try:
        if options.what in ("plan", "all"):
            print(plan_8b(folder / "8b", options.checkpoints or 8), end="\n\n")
        if options.what in ("merge", "all"):
            print(merge_1b(folder / "1b", options.checkpoints or 2), end="\n\n")
        print(machine())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
