"""Tests of the layouts of CLIP: whole models, towers with and without prefix, with a projection, and mixtures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import Selection, align, open_checkpoint
from hubmerge.errors import CheckpointError
from tests.checkpoints.families import base, save, tuned
from tests.checkpoints.files import selection_in
from tests.checkpoints.merging import merge, read_all
from tests.checks import every

PREFIX = "vision_model."
PROJECTION = "visual_projection.weight"
SEEDS = (1, 2)
NOT_THE_TOWER = Selection(exclude=("text_model.*", "*_projection.weight", "logit_scale"))
ONLY_THE_TOWER = Selection(exclude=("visual_projection.weight",))


def whole(folder: Path, seed: int) -> Path:
    return save(tuned("CLIPModel", seed), folder / f"whole{seed}")


def tower(folder: Path, seed: int, prefix: str) -> Path:
    """Save the vision tower of `whole` as transformers 4 (with the prefix) or 5 (without) does."""
    target = save(base("CLIPVisionModel"), folder / f"tower{seed}{prefix.rstrip('.')}")
    names = set(load_file(target / "model.safetensors"))
    values = load_file(whole(folder, seed) / "model.safetensors")
    values = {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}
    assert set(values) == names
    save_file({prefix + name: value for name, value in values.items()}, target / "model.safetensors", {"format": "pt"})
    return target


def projected(folder: Path, seed: int) -> Path:
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(whole(folder, seed))
    return save(model, folder / f"projected{seed}")


def entry(folder: Path, kind: str, seed: int) -> Path:
    makers = {
        "whole": lambda: whole(folder, seed),
        "prefixed": lambda: tower(folder, seed, PREFIX),
        "plain": lambda: tower(folder, seed, ""),
        "projected": lambda: projected(folder, seed),
    }
    return makers[kind]()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Return the merged tower, from towers without prefix and a whole base model."""
    folder = tmp_path_factory.mktemp("expected")
    start = save(base("CLIPModel"), folder / "base")
    merged = merge(folder, start, [tower(folder, seed, "") for seed in SEEDS]).values()
    return {name.removeprefix(PREFIX): value for name, value in merged.items() if name.startswith(PREFIX)}


@pytest.mark.parametrize(
    ("kinds", "selection"),
    [
        (("prefixed", "prefixed"), Selection()),
        (("prefixed", "plain"), Selection()),
        (("projected", "plain"), ONLY_THE_TOWER),
        (("projected", "prefixed"), ONLY_THE_TOWER),
        (("whole", "whole"), NOT_THE_TOWER),
        (("whole", "plain"), NOT_THE_TOWER),
        (("prefixed", "whole"), NOT_THE_TOWER),
        (("projected", "whole"), NOT_THE_TOWER),
    ],
)
def test_every_mixture_of_layouts_gives_the_same_tower(
    tmp_path: Path, expected: dict[str, torch.Tensor], kinds: tuple[str, str], selection: Selection
) -> None:
    start = save(base("CLIPModel"), tmp_path / "base")
    entries = [entry(tmp_path, kind, seed) for kind, seed in zip(kinds, SEEDS, strict=True)]
    merged = merge(tmp_path, start, entries, selection=selection)
    found, before = merged.values(), read_all(start)
    assert set(found) == set(before)
    for name, value in found.items():
        expected_value = expected[name.removeprefix(PREFIX)] if name.startswith(PREFIX) else before[name]
        assert torch.equal(value, expected_value), name


@pytest.mark.parametrize("base_kind", ["plain", "prefixed", "projected"])
@pytest.mark.parametrize("kind", ["plain", "prefixed"])
def test_a_tower_as_the_base_model(tmp_path: Path, base_kind: str, kind: str) -> None:
    (tmp_path / "base").mkdir()
    start = entry(tmp_path / "base", base_kind, 0)
    checkpoints = [entry(tmp_path, kind, seed) for seed in SEEDS]
    # The expected result for a base model that is not a whole CLIPModel uses seed 0 of `tuned`.
    reference = merge(tmp_path / "reference", whole(tmp_path / "base", 0), [entry(tmp_path, "plain", s) for s in SEEDS])
    merged = merge(tmp_path, start, checkpoints)
    reference_tower = {name: value for name, value in reference.values().items() if name.startswith(PREFIX)}
    prefix = "" if base_kind == "plain" else PREFIX
    found = {PREFIX + name.removeprefix(prefix): value for name, value in merged.values().items()}
    found.pop(PREFIX + PROJECTION, None)
    assert set(found) == set(reference_tower)
    assert every(torch.equal(found[name], value) for name, value in reference_tower.items())
    assert every(name.startswith(prefix) or name == PROJECTION for name in merged.values())


def test_all_tensors_of_whole_models_are_merged(tmp_path: Path) -> None:
    from transformers import CLIPModel

    start = save(base("CLIPModel"), tmp_path / "base")
    merged = merge(tmp_path, start, [whole(tmp_path, seed) for seed in SEEDS])
    assert set(merged.actions().values()) == {"merge-matrix", "merge-other"}
    assert merged.actions()["text_projection.weight"] == "merge-matrix"
    model = CLIPModel.from_pretrained(merged.folder)
    assert torch.equal(model.logit_scale.detach(), merged.values()["logit_scale"])


@pytest.mark.parametrize("kinds", [("whole", "plain"), ("prefixed", "whole"), ("projected", "plain")])
def test_a_mixed_stream_without_a_rule_is_refused_and_the_hint_works(tmp_path: Path, kinds: tuple[str, str]) -> None:
    start = save(base("CLIPModel"), tmp_path / "base")
    entries = [entry(tmp_path, kind, seed) for kind, seed in zip(kinds, SEEDS, strict=True)]
    rule = 'include: ["vision_model.*"]' if "whole" in kinds else 'exclude: ["visual_projection.*"]'
    with pytest.raises(CheckpointError, match="is missing, which") as caught:
        merge(tmp_path / "refused", start, entries)
    assert rule in (caught.value.hint or "")
    merged = merge(tmp_path / "merged", start, entries, selection=selection_in(caught.value))
    assert {tensor.name for tensor in merged.plan.merged} == {n for n in read_all(start) if n.startswith(PREFIX)}


def test_layouts_are_described(tmp_path: Path) -> None:
    start = open_checkpoint(save(base("CLIPModel"), tmp_path / "base"))
    layouts = {
        kind: align(start, open_checkpoint(entry(tmp_path, kind, 1))).layout
        for kind in ("whole", "plain", "prefixed", "projected")
    }
    assert layouts == {
        "whole": "names as they are",
        "plain": "`vision_model.` added to the names",
        "prefixed": "names as they are",
        "projected": "names as they are",
    }


def test_auxiliary_files_are_copied_but_not_weights_in_other_formats(tmp_path: Path) -> None:
    start = save(base("CLIPModel"), tmp_path / "base")
    companions = {
        "preprocessor_config.json": "{}",
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "special_tokens_map.json": "{}",
        "vocab.json": "{}",
        "merges.txt": "#version: 0.2\n",
        "spiece.model": "\0\1",
        "generation_config.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "LICENSE": "as you like",
    }
    for name, text in companions.items():
        (start / name).write_text(text)
    for name in ("pytorch_model.bin", "flax_model.msgpack", "adapter_config.json", "training_args.bin"):
        (start / name).write_text("not to be copied")
    merged = merge(tmp_path, start, [tower(tmp_path, 1, "")])
    found = {path.name: path for path in merged.folder.iterdir()}
    assert {name: found[name].read_text() for name in companions} == companions
    assert set(found) - set(companions) == {
        "config.json",
        "model.safetensors",
    }
    assert json.loads(found["config.json"].read_text())["architectures"] == ["CLIPModel"]
