"""Differences between two models: values, names, shapes, dtypes, layouts, shards, adapters, and what is not read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import hubmerge as api
from hubmerge.checkpoints import open_checkpoint
from hubmerge.inspection.compare import compare_values
from hubmerge.inspection.differences import Diff, Measures
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a language model of two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "base"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def copy_of(base: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Copy a model with changed tensors."""
    shutil.copytree(base, folder)
    save_file(change(load_file(base / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def diff(one: object, other: object) -> Diff:
    return api.diff(str(one), str(other), progress=None)


QUERY = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


def test_values_are_those_of_the_definition(base: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        noise = torch.randn(tensors[QUERY].shape, generator=torch.Generator().manual_seed(1))
        return {**tensors, QUERY: tensors[QUERY] + 0.1 * noise, NORM: tensors[NORM] * 2}

    other = copy_of(base, tmp_path / "other", change)
    found = diff(base, other)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, other))
    assert [one.name for one in found.tensors[:2]] == sorted(
        (QUERY, NORM), key=lambda name: -float((after[name] - before[name]).norm() / before[name].norm())
    )
    for one in found.tensors:
        pair = before[one.name].double().flatten(), after[one.name].double().flatten()
        apart = pair[1] - pair[0]
        assert one.measures.relative == pytest.approx(float(apart.norm() / pair[0].norm()), rel=1e-12)
        assert one.measures.cosine == pytest.approx(float(torch.cosine_similarity(*pair, dim=0)), abs=1e-12)
        assert one.measures.largest == float(apart.abs().max())
        assert one.measures.changed == int(apart.count_nonzero())
    assert set(found.layers) == {"model.layers.0", "model.layers.1", "outside the layers"}
    assert [one.order() for one in found.layers.values()] == sorted(one.order() for one in found.layers.values())
    assert found.layers["outside the layers"].difference_norm == 0.0
    whole = torch.cat([(after[name].double() - before[name].double()).flatten() for name in before])
    assert found.whole.difference_norm == pytest.approx(float(whole.norm()), rel=1e-9)
    assert not found.identical
    assert f"  {QUERY}" in str(found)
    assert "2 of 21 tensors differ, 19 are equal" in str(found)


def test_names_shapes_and_dtypes_are_compared(base: Path, tmp_path: Path) -> None:
    def change(tensors: Tensors) -> Tensors:
        tensors = {**tensors, "extra.weight": torch.ones(2), NORM: tensors[NORM].to(torch.bfloat16)}
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:60].clone()
        del tensors["model.norm.weight"]
        return tensors

    found = diff(base, copy_of(base, tmp_path / "other", change))
    assert found.only_in_one == ("model.norm.weight",)
    assert found.only_in_other == ("extra.weight",)
    assert [(one.name, one.shape, one.other_shape) for one in found.reshaped] == [
        ("lm_head.weight", (64, 16), (60, 16))
    ]
    (norm,) = [one for one in found.tensors if one.name == NORM]
    assert (norm.dtype, norm.other_dtype, norm.measures.changed) == ("float32", "bfloat16", 0)
    assert not found.identical
    text = str(found)
    for line in (
        "only in 1   model.norm.weight",
        "only in 2   extra.weight",
        "shape       lm_head.weight: 64 x 16, then 60 x 16",
        "float32 -> bfloat16",
    ):
        assert line in text


def test_layouts_and_shards_make_no_difference(base: Path, tmp_path: Path) -> None:
    """Another prefix, pickles, several files, another dtype of the same values."""
    prefixed = copy_of(base, tmp_path / "prefixed", lambda old: {f"module.{name}": old[name] for name in old})
    found = diff(base, prefixed)
    assert found.identical
    assert "`module.` removed from the names" in str(found)
    pickled = tmp_path / "pickled"
    shutil.copytree(base, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(base / "model.safetensors"), pickled / "pytorch_model.bin")
    assert diff(base, pickled).identical
    assert diff(pickled, shutil.copytree(pickled, tmp_path / "again")).unread == 21
    sharded = tmp_path / "sharded"
    LlamaForCausalLM.from_pretrained(base).save_pretrained(sharded, max_shard_size="8KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert diff(base, sharded).identical
    assert diff(sharded, prefixed).identical
    rounded = copy_of(base, tmp_path / "rounded", lambda old: {name: old[name].to(torch.bfloat16) for name in old})
    wide = copy_of(rounded, tmp_path / "wide", lambda old: {name: old[name].double() for name in old})
    found = diff(rounded, wide)
    assert found.whole.changed == 0
    assert not found.identical  # the dtypes differ
    relative = diff(base, rounded).whole.relative
    assert relative is not None
    assert 0 < relative < 1 / 256


def write_adapter(folder: Path, base: Path, factors: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Path:
    folder.mkdir()
    stem = "base_model.model."
    tensors = {f"{stem}{name}.lora_A.weight": a for name, (a, _) in factors.items()}
    tensors |= {f"{stem}{name}.lora_B.weight": b for name, (_, b) in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": str(base)
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_adapters_are_compared_with_whole_models(base: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in (0, 1)]
    factors = {
        name: (torch.randn(2, 16, generator=generator), torch.randn(16, 2, generator=generator)) for name in names
    }
    adapter = write_adapter(tmp_path / "adapter", base, factors)
    change = {f"{name}.weight": 2 * b @ a for name, (a, b) in factors.items()}
    merged = copy_of(
        base, tmp_path / "merged", lambda old: {key: value + change.get(key, 0) for key, value in old.items()}
    )
    found = diff(base, f"{base}+{adapter}")
    changed = [one.name for one in found.tensors if one.measures.changed]
    assert sorted(changed) == [f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)]
    alone = diff(base, adapter)  # its config names the base model
    assert alone.tensors == found.tensors
    relative = diff(merged, adapter).whole.relative
    assert relative is not None
    assert relative < 1e-6
    described = api.inspect(adapter, progress=None)
    assert (described.kind, described.tensors) == ("checkpoint", 21)
    assert described.norm == pytest.approx(alone.whole.other_norm)
    assert str(adapter) in described.place
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(api.CheckpointError, match="does not name its base model") as refused:
        diff(base, adapter)
    assert refused.value.hint == f"name both: BASE+{adapter}"


def test_files_with_equal_digests_are_neither_downloaded_nor_read(
    base: Path, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, one, other = HfApi(), repo_name("one"), repo_name("other")
    for repo in (one, other):
        hub.create_repo(repo)
        hub.upload_folder(repo_id=repo, folder_path=base)
    copied = Path(shutil.copytree(base, tmp_path / "copied"))
    for pair in ((one, other), (one, f"{other}@main"), (base, copied), (base, one)):
        found = diff(*pair)
        assert found.identical
        assert (found.tensors, found.unread) == ((), 21)
        assert "21 are in files with equal digests" in str(found)
        assert "identical" in str(found)
    with pytest.raises(FileNotFoundError):
        snapshot_download(one, local_files_only=True, allow_patterns="*.safetensors", revision="main")
    other_file = copy_of(base, tmp_path / "changed", lambda old: {**old, NORM: old[NORM] + 1})
    assert [x.name for x in diff(one, other_file).tensors if x.measures.changed] == [NORM]


def test_a_pickle_is_read_in_pieces(tmp_path: Path) -> None:
    """Never more than a piece of a tensor is copied; one that is stored transposed is copied whole."""
    tensors = {
        "large": torch.arange(1000.0).view(20, 50),
        "turned": torch.arange(12.0).view(3, 4).T,
        "one": torch.tensor(3.0),
        "none": torch.empty(0, 4),
    }
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with open_checkpoint(tmp_path) as model:
        for name, tensor in tensors.items():
            pieces = [piece.clone() for piece in model.read_pieces(name, 7)]
            assert every(piece.dim() == 1 and len(piece) <= 7 for piece in pieces)
            assert torch.equal(torch.cat(pieces), tensor.reshape(-1))
        (first, *_) = model.read_pieces("large", 7)
        assert first.untyped_storage().nbytes() == 7 * 4


def test_states_are_compared(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    folders = []
    for number, entries in enumerate((tuple(stage.towers)[:2], tuple(stage.towers)[1:])):
        recipe = stage.recipe(None, entries=entries, merge_method="wudi", evaluate=None)
        folders.append(tmp_path / f"merged-{number}")
        assert hubmerge("run", stage.write(tmp_path, recipe), "--out", folders[-1], "--state")[0] == 0
    one, other = (folder / "state" for folder in folders)
    assert diff(one, shutil.copytree(one, tmp_path / "copy")).identical
    found = diff(one, other)
    name = found.tensors[0].name
    values = [
        load_file(folder / "accumulated.safetensors") | load_file(folder / "parts.safetensors")
        for folder in (one, other)
    ]
    expected = (values[1][name] - values[0][name]).norm() / values[0][name].norm()
    assert found.tensors[0].measures.relative == pytest.approx(float(expected))
    assert diff(*folders).tensors  # the merged models, whatever lies beside them
    status, _, errors = hubmerge("diff", one, folders[1])
    assert status == 2
    assert f"{one} is a state" in errors


def test_values_that_are_no_numbers() -> None:
    nan, inf = float("nan"), float("inf")
    equal = torch.tensor([nan, inf, -inf, 1.0])
    assert compare_values(iter([equal]), iter([equal.clone()])) == Measures(1.0, 1.0, 0.0, 1.0, 0.0, 0, 4)
    found = compare_values(iter([equal]), iter([torch.tensor([1.0, inf, inf, 1.0])]))
    assert (found.changed, found.finite) == (2, False)
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_pieces_make_no_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(1000, generator=generator, dtype=torch.float64) for _ in range(2))
    whole, pieces = (compare_values(iter(one.split(n)), iter(other.split(n))).to_dict() for n in (1000, 7))
    assert pieces == pytest.approx(whole, rel=1e-12)
    zeros = compare_values(iter([torch.zeros(3)]), iter([torch.ones(3)]))
    assert (zeros.relative, zeros.cosine, zeros.largest) == (None, None, 1.0)
    assert compare_values(iter([torch.zeros(0)]), iter([torch.zeros(0)])).relative == 0.0
    huge = compare_values(iter([torch.full((4,), 1e200, dtype=torch.float64)]), iter([torch.zeros(4).double()]))
    assert huge.relative == 1.0


def test_the_command_limits_what_it_shows(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], hubmerge: Command
) -> None:
    other = copy_of(base, tmp_path / "other", lambda old: {name: old[name] + 0.5 for name in old})
    status, output, _ = hubmerge("diff", base, other, "--limit", "3")
    assert status == 0
    assert output.count("\n  model.") + output.count("\n  lm_head") == 3
    assert "18 more tensors differ: --limit 21 shows all" in output
    output = hubmerge("diff", base, other, "--limit", "0")[1]
    assert "21 more tensors differ: --limit 21 shows all" in output
    assert "cosine  largest" not in output
    status, output, _ = hubmerge("diff", base, other, "--json")
    event = next(line for line in map(json.loads, output.splitlines()) if line["event"] == "diff")
    assert len(event["tensors"]) == 21
    assert event["identical"] is False
    status, _, errors = hubmerge("diff", base, tmp_path / "none")
    assert status == 2
    assert "folder not found" in errors


def test_a_step_is_compared_with_its_base_model(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = tuple(stage.towers)[:1]
    recipe = stage.write(tmp_path, stage.recipe(None, entries=names, evaluate=None))
    assert hubmerge("run", recipe, "--out", out)[0] == 0
    report = json.loads((out / "hubmerge.json").read_text(encoding="utf-8"))
    found = diff(stage.base, out)
    assert found.whole.difference_norm == pytest.approx(report["steps"][-1]["drift"], rel=1e-5)
    tower = diff(stage.base, stage.towers[names[0]])  # a vision tower in the whole model
    assert tower.renaming or not tower.only_in_other
