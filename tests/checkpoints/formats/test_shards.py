"""Tensors are distributed over shards, and the index is written last."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.checkpoints import Shard, ShardedWriter, TensorSpec, open_checkpoint, plan_shards, uses_older_shards
from tests.checkpoints.files import names_in, random_tensors, specs_of
from tests.checks import every


def spec(name: str, nbytes: int) -> TensorSpec:
    return TensorSpec(name, torch.uint8, (nbytes,))


def test_a_single_shard_has_the_plain_name() -> None:
    (shard,) = plan_shards([spec("a", 10), spec("b", 10)], 20)
    assert (shard.file, [each.name for each in shard.specs]) == ("model.safetensors", ["a", "b"])
    assert plan_shards([spec("a", 10)], 20, kept={"a"})[0].file == "model.safetensors"


MB = 1_000_000
LIMIT = 5_000 * MB


def names_of(shards: tuple[Shard, ...]) -> list[list[str]]:
    return [[each.name for each in shard.specs] for shard in shards]


def test_large_kept_tensors_are_first_in_shards_of_their_own() -> None:
    specs = [spec("a", 4), spec("k", 30 * MB), spec("b", 4), spec("l", 20 * MB)]
    shards = plan_shards(specs, LIMIT, kept={"k", "l"})
    assert [(shard.file, [each.name for each in shard.specs], shard.kept) for shard in shards] == [
        ("model-00001-of-00002.safetensors", ["k", "l"], True),
        ("model-00002-of-00002.safetensors", ["a", "b"], False),
    ]


def test_a_kept_tensor_below_50_mb_stays_in_the_one_file() -> None:
    specs = [spec("weight", 90 * MB), spec("position_ids", 4096), spec("mask", 50 * MB - 4097)]
    (shard,) = plan_shards(specs, LIMIT, kept={"position_ids", "mask"})
    assert (shard.file, shard.kept) == ("model.safetensors", False)
    assert names_of((shard,)) == [["weight", "position_ids", "mask"]]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"small": 1, "large": 6_000, "rest": 3_000}, [["small", "large"], ["rest"]]),
        ({"rest": 3_000, "large": 6_000, "small": 1}, [["rest"], ["large", "small"]]),
        ({"first": 4_990, "small": 20, "last": 4_970}, [["first"], ["small", "last"]]),
        ({"one": 2_500, "two": 2_500, "small": 1}, [["one"], ["two", "small"]]),
        ({"full": 5_000, "small": 1, "other": 4_000}, [["full"], ["small", "other"]]),
        ({"small": 1, "other": 2}, [["small", "other"]]),
    ],
)
def test_a_small_tensor_has_no_shard_of_its_own(sizes: dict[str, int], expected: list[list[str]]) -> None:
    specs = [spec(name, size * MB) for name, size in sizes.items()]
    assert names_of(plan_shards(specs, LIMIT)) == expected


def test_the_files_of_a_step_show_how_they_were_distributed() -> None:
    specs = [spec("k", 4096), spec("a", 90 * MB)]
    shown = partial(uses_older_shards, specs=specs, max_shard_bytes=LIMIT, kept={"k"})
    assert shown(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    assert not shown(["model.safetensors"])
    assert not uses_older_shards(["model.safetensors"], specs, LIMIT, kept=())
    assert names_of(plan_shards(specs, LIMIT, kept={"k"}, older=True)) == [["k"], ["a"]]


def test_a_limit_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a positive limit for shards, found 0 bytes"):
        plan_shards([spec("a", 1)], 0)


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=30), limit=st.integers(1, 2000), data=st.data())
def test_every_tensor_is_in_one_shard_and_no_shard_is_too_large(
    sizes: list[int], limit: int, data: st.DataObject
) -> None:
    specs = [spec(f"t{number:02d}", size) for number, size in enumerate(sizes)]
    kept = data.draw(st.sets(st.sampled_from([each.name for each in specs])))
    older = data.draw(st.booleans())
    shards = plan_shards(specs, limit, kept=kept, older=older)
    placed = [each.name for shard in shards for each in shard.specs]
    assert sorted(placed) == [each.name for each in specs]
    for shard in shards:
        large = max(each.nbytes for each in shard.specs)
        others = shard.nbytes - large
        assert (
            shard.nbytes <= limit or len(shard.specs) == 1 or (large > limit and others < 2 * len(specs) * limit / 100)
        )
        assert shard.kept is all(each.name in kept for each in shard.specs)
        assert not older or len({each.name in kept for each in shard.specs}) == 1
    assert len({shard.file for shard in shards}) == len(shards)


def test_written_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    tensors = random_tensors({f"t{number}": (4, 5) for number in range(7)})
    shards = plan_shards(specs_of(tensors), 200, kept={"t3"}, older=True)
    with ShardedWriter(tmp_path, shards) as writer:
        for name in reversed(tensors):
            if name == "t3":
                writer.write_raw(name, tensors[name].numpy().tobytes())
            else:
                writer.write(name, tensors[name])
        assert [path for path in names_in(tmp_path) if not path.startswith(".")] == []
        written = writer.commit()
    assert len(written) == len(shards) == 4
    assert {name for file in written for name in file.digests} == set(tensors)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 7 * 80}
    with open_checkpoint(tmp_path) as checkpoint:
        assert every(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())
        assert {info.file for info in checkpoint.tensors.values()} == set(index["weight_map"].values())
    assert not [path for path in names_in(tmp_path) if path.startswith(".")]


def test_nothing_appears_if_one_tensor_is_missing(tmp_path: Path) -> None:
    tensors = random_tensors({"a": (4,), "b": (4,)})
    with ShardedWriter(tmp_path, plan_shards(specs_of(tensors), 16)) as writer:
        writer.write("a", tensors["a"])
        with pytest.raises(ValueError, match="'b'"):
            writer.commit()
    assert names_in(tmp_path) == []


def test_a_single_shard_has_no_index_and_removes_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    tensors = random_tensors({"a": (4,)})
    with ShardedWriter(tmp_path, plan_shards(specs_of(tensors), 16)) as writer:
        writer.write("a", tensors["a"])
        writer.commit()
    assert names_in(tmp_path) == ["model.safetensors"]


def test_kept_shards_have_equal_bytes_at_every_step(tmp_path: Path) -> None:
    contents = []
    for seed in (1, 2):
        tensors = random_tensors({"merged": (6,)}, seed) | random_tensors({"kept": (6,)})
        with ShardedWriter(
            tmp_path / str(seed), plan_shards(specs_of(tensors), 10_000, kept={"kept"}, older=True)
        ) as writer:
            for name, tensor in tensors.items():
                writer.write(name, tensor)
            contents.append([file.path.read_bytes() for file in writer.commit()])
    assert contents[0][0] == contents[1][0]
    assert contents[0][1] != contents[1][1]
