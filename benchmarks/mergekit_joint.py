"""Joint methods over a base model and two others of a Llama shape in bfloat16: hubmerge against mergekit-yaml.

    python benchmarks/mergekit_joint.py --folder ~/.cache/hubmerge/benchmarks
    python benchmarks/mergekit_joint.py --folder ... --hidden 2048 --layers 16 --vocabulary 128256   # 1.2 billion

Both programs read the same folders and the same recipe, on as many CPUs, and write one model. hubmerge also hashes what
it reads and writes, and checks that transformers loads the model; "again" is its second run over the same folders, when
it remembers their digests. `--python` names a Python that has mergekit 0.1.5; without it, one is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from measuring import Cost, hubmerge, hubmerge_environment, machine, markdown, measure
from peers import environment

PROCESSES = ("mergekit-yaml", "hubmerge run", "hubmerge run, again")
SUM = {"normalize": True}
METHODS: dict[str, tuple[int, dict[str, object], dict[str, object]]] = {
    "linear": (2, {"weight": 0.5}, {}),
    "slerp": (1, {}, {"t": 0.4}),
    "nuslerp": (2, {"weight": 0.5}, {}),
    "multislerp": (2, {"weight": 0.5}, {}),
    "karcher": (2, {}, {}),
    "task_arithmetic": (2, {"weight": 0.5}, {}),
    "ties": (2, {"weight": 0.5, "density": 0.5}, SUM),
    "dare_linear": (2, {"weight": 0.5, "density": 0.5}, {}),
    "dare_ties": (2, {"weight": 0.5, "density": 0.5}, {}),
    "della": (2, {"weight": 0.5, "density": 0.5}, SUM),
    "della_linear": (2, {"weight": 0.5, "density": 0.5}, {}),
    "breadcrumbs": (2, {"weight": 0.5, "density": 0.9}, {}),
    "breadcrumbs_ties": (2, {"weight": 0.5, "density": 0.9}, {}),
    "sce": (2, {}, {"select_topk": 0.5}),
    "model_stock": (2, {}, {}),
    "nearswap": (1, {}, {"t": 0.001}),
    "arcee_fusion": (1, {}, {}),
    "ram": (2, {}, {}),
    "ramplus_tl": (2, {}, {}),
    "passthrough": (1, {"scale": 0.5}, {}),
}
"""Number of models besides the base model, parameters of each, and parameters of the merge."""

WITHOUT_BASE = frozenset({"linear", "karcher", "passthrough"})


def recipe(method: str, base: Path, models: Sequence[Path]) -> dict[str, object]:
    """Return one recipe for both programs."""
    count, own, shared = METHODS[method]
    entries = [{"model": str(model), **({"parameters": own} if own else {})} for model in models[:count]]
    found: dict[str, object] = {"merge_method": method, "models": entries, "dtype": "bfloat16"}
    if method not in WITHOUT_BASE:
        found["base_model"] = str(base)
    return found | ({"parameters": shared} if shared else {})


def write_models(folder: Path, hidden: int, layers: int, vocabulary: int) -> None:
    """Write a base model and two models around it."""
    import torch
    from safetensors.torch import save_file

    inner = hidden * 11 // 4
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "vocab_size": vocabulary,
        "num_hidden_layers": layers, "num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64,
        "intermediate_size": inner, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        for part, shape in {
            "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden, hidden),
            "self_attn.v_proj": (hidden, hidden), "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        }.items():  # fmt: skip
            shapes[f"model.layers.{layer}.{part}.weight"] = shape
    for number, name in enumerate(("base", "first", "second")):
        target = folder / name
        target.mkdir(parents=True)
        tensors = {}
        for place, (key, shape) in enumerate(shapes.items()):
            base = torch.randn(shape, generator=torch.Generator().manual_seed(place)).mul_(0.02)
            if number:
                noise = torch.randn(shape, generator=torch.Generator().manual_seed(1000 * number + place))
                base.add_(noise, alpha=0.002)
            tensors[key] = base.bfloat16()
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
        (target / "config.json").write_text(json.dumps(config), encoding="utf-8")


def model_folders(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Return the folders of the models, written once by a process of their own: torch would swell this one."""
    home = folder / "checkpoints" / f"llama-{options.hidden}-{options.layers}-{options.vocabulary}"
    if not home.is_dir():
        partial = home.with_name(f".{home.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        sizes = [str(options.hidden), str(options.layers), str(options.vocabulary)]
        subprocess.run([sys.executable, __file__, "--write", partial, *sizes], check=True)
        partial.rename(home)
    return [home / name for name in ("base", "first", "second")]


def agreement(first: Path, second: Path) -> float:
    """Return the share of elements of two models that are not equal."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = load_file(first), load_file(second)
    if set(ours) != set(theirs):
        raise RuntimeError(f"other tensors: {sorted(set(ours) ^ set(theirs))[:3]}")
    other = sum(int(torch.count_nonzero(ours[name] != theirs[name])) for name in ours)
    return other / sum(value.numel() for value in ours.values())


def run_pair(method: str, folder: Path, program: Path, models: Sequence[Path], cpus: int) -> dict[str, object]:
    """Measure mergekit, then hubmerge twice, and compare their results."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
    try:
        path = work / "recipe.yaml"
        written = recipe(method, models[0], models[1:])
        path.write_text(json.dumps(written), encoding="utf-8")
        ours = work / "ours.yaml"
        both = method in {"linear", "task_arithmetic", "ties"}
        ours.write_text(json.dumps(written | ({"form": "joint"} if both else {})), encoding="utf-8")
        command: list[str | Path] = [program, path, work / "theirs", "--no-copy-tokenizer", "--quiet"]
        threads = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cpus)}
        costs = [measure(command, cpus=cpus, log=folder / "logs" / f"joint-{method}.txt", environment=threads)]
        for run in ("first", "again"):
            log = folder / "logs" / f"joint-{method}-{run}.txt"
            command = [*hubmerge(ours, work / f"runs-{run}"), "--out", work / run]
            shutil.rmtree(work / "first", ignore_errors=True)  # the models are large
            costs.append(measure(command, cpus=cpus, log=log, environment=hubmerge_environment(work / "cache")))
        pair = [work / side / "model.safetensors" for side in ("again", "theirs")]
        done = subprocess.run(
            [sys.executable, __file__, "--compare", *pair], check=True, capture_output=True, text=True
        )
        told = {name: asdict(cost) for name, cost in zip(PROCESSES, costs, strict=True)}
        return {"method": method, "cpus": cpus, "costs": told, "unequal": float(done.stdout)}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table(results: Path) -> str:
    """Return the measurements so far, with the smallest value of each."""
    rows = []
    lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    for method in METHODS:
        mine = [line for line in lines if line["method"] == method]
        if not mine:
            continue
        least = {name: Cost.least([Cost(**line["costs"][name]) for line in mine]) for name in PROCESSES}
        cells = []
        for figure in ("wall_seconds", "cpu_seconds", "peak_megabytes"):
            theirs, first, again = (getattr(least[name], figure) for name in PROCESSES)
            cells += [f"{theirs:.0f}", f"{first:.0f}", f"{again:.0f}", f"{again / theirs:.2f}"]
        rows.append([method, *cells, f"{100 * max(line['unequal'] for line in mine):.2f} %"])
    parts = ["mergekit", "hubmerge", "again", "ratio"]
    header = ["method", *(f"{unit}: {part}" for unit in ("wall s", "CPU s", "peak MB") for part in parts), "unequal"]
    return markdown(header, rows) + f"\n\n{machine()}"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="checkpoints, environments, results")
    parser.add_argument("--python", type=Path, help="a Python that has mergekit 0.1.5")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--compare", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.write:
        write_models(Path(options.write[0]), *map(int, options.write[1:]))
        return
    if options.compare:
        print(agreement(*options.compare))
        return
    folder = options.folder.expanduser().resolve()
    name = f"joint-{options.hidden}-{options.layers}-{options.vocabulary}-{options.cpus}"
    results = folder / "results" / f"{name}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    if not options.table:
        models = model_folders(folder, options)
        programs = options.python.parent if options.python else environment(folder, "mergekit")
        for _ in range(options.repeat):
            for method in options.methods:
                row = run_pair(method, folder, programs / "mergekit-yaml", models, options.cpus)
                print(row, flush=True)
                with results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
