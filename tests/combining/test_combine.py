"""Streams combined into one by adding their states."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import load_file, save_file

import hubmerge
from hubmerge.cards.merge_cards import BEGIN
from hubmerge.cli.main import main
from tests.stage import Stage

Names = Callable[[str], str]


def merged(repo: str) -> dict[str, torch.Tensor]:
    return load_file(hf_hub_download(repo, "model.safetensors"))


def report_of(repo: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    return content


def same_weights(one: str, other: str) -> bool:
    found, expected = merged(one), merged(other)
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], expected[name], rtol=1e-6, atol=1e-8) for name in expected
    )


class Streams:
    """Published streams of the tiny stage without scores, and commands on them."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.first, self.second, self.third = stage.towers

    def publish(self, repo: str, *entries: str, **changes: Any) -> str:
        recipe = self.stage.recipe(repo, entries=entries, **{"merge_method": "wudi", "evaluate": None, **changes})
        hubmerge.run(recipe, work_dir=self.folder / "work", progress=None).finish()
        return repo

    def combine(self, *streams: str | Path, **options: Any) -> hubmerge.CombinedStream:
        return hubmerge.combine(streams, work_dir=self.folder / "work", progress=None, **options)


@pytest.fixture(scope="module")
def streams(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Streams:
    """Publish `local/c-N` with one entry each, and `local/c-all` with all."""
    made = Streams(stage, tmp_path_factory.mktemp("streams"))
    for number, name in enumerate(stage.towers, start=1):
        made.publish(f"local/c-{number}", name)
    made.publish("local/c-all", *stage.towers)
    return made


def verified(repo: str) -> None:
    verdict = hubmerge.verify(repo, progress=None)
    assert verdict.verified, str(verdict)


def test_streams_are_combined_scored_and_verified(stage: Stage, streams: Streams, repo_name: Names) -> None:
    one, other, whole, both = map(repo_name, ("one", "other", "whole", "both"))
    for repo, names in ((one, (streams.first, streams.second)), (other, (streams.third,)), (whole, stage.towers)):
        recipe = stage.recipe(repo, entries=tuple(names), merge_method="wudi")
        hubmerge.run(recipe, work_dir=streams.folder / "work", progress=None).finish()
    made = streams.combine(one, other, into=both)
    assert (made.added, len(made.addresses)) == (3, 1)
    assert same_weights(both, whole)
    found, expected = report_of(both), report_of(whole)
    assert found["steps"][-1]["scores"] == expected["steps"][-1]["scores"]
    assert found["own_scores"] == expected["own_scores"]
    assert [step["commit"] for step in found["steps"]] == [step["commit"] for step in expected["steps"]]
    assert [part["place"] for part in found["steps"][-1]["combined"]] == [one, other]
    card = Path(hf_hub_download(both, "README.md")).read_text(encoding="utf-8")
    assert "were merged as 2 streams, whose states were added" in card
    verified(both)
    assert streams.combine(one, other, into=both).added == 0


def test_a_combined_stream_is_extended_revoked_from_and_read(streams: Streams, repo_name: Names) -> None:
    both, never = repo_name("both"), repo_name("never")
    streams.combine("local/c-2", "local/c-1", into=both)
    recipe = yaml.safe_load(Path(hf_hub_download(both, "hubmerge.yaml")).read_text(encoding="utf-8"))
    recipe["models"].append({"model": streams.stage.towers[streams.third], "name": streams.third})
    extended = hubmerge.run(recipe, work_dir=streams.folder / "elsewhere", progress=None)
    assert [step.step for step in extended] == [3]
    assert same_weights(both, "local/c-all")
    verified(both)
    hubmerge.revoke(both, [streams.second], work_dir=streams.folder / "elsewhere", progress=None).finish()
    streams.publish(never, streams.first, streams.third)
    assert same_weights(both, never)
    read = hubmerge.read(both, "iso_c", out=streams.folder / "read", work_dir=streams.folder / "reading", progress=None)
    assert load_file(read / "model.safetensors").keys() == merged(both).keys()
    verified(both)


def test_folders_are_combined_again_and_published(streams: Streams, repo_name: Names, tmp_path: Path) -> None:
    folder, both = tmp_path / "pair", repo_name("all")
    made = streams.combine("local/c-1", "local/c-2", out=folder, state=True)
    assert made.addresses == ()
    assert sorted(path.name for path in (folder / "state").iterdir()) == [
        "accumulated.safetensors",
        "parts.safetensors",
        "state.json",
    ]
    assert hubmerge.verify(str(folder), progress=None).verified
    streams.combine(folder, "local/c-3", into=both)
    assert same_weights(both, "local/c-all")
    verified(both)
    (folder / "state" / "accumulated.safetensors").write_bytes(
        (folder / "state" / "accumulated.safetensors").read_bytes()[:-8] + b"damaged!"
    )
    with pytest.raises(hubmerge.HubError, match="does not match its checksum"):
        streams.combine(folder, "local/c-3", out=tmp_path / "other")


def test_a_checkpoint_in_two_streams_is_refused_by_name(streams: Streams, repo_name: Names) -> None:
    pair, both = repo_name("pair"), repo_name("both")
    streams.publish(pair, streams.first, streams.second)
    with pytest.raises(hubmerge.UsageError, match="merged twice") as caught:
        streams.combine(pair, "local/c-2", "local/c-3", into=both)
    assert streams.second in caught.value.message
    assert caught.value.context.repo == "local/c-2"


@pytest.mark.slow
def test_a_checkpoint_in_two_streams_is_counted_once(streams: Streams, repo_name: Names) -> None:
    pair, both = repo_name("pair"), repo_name("both")
    streams.publish(pair, streams.first, streams.second)
    made = streams.combine(pair, "local/c-2", "local/c-3", into=both, duplicates="subtract")
    assert made.subtracted == (f"{streams.second}-2",)
    assert same_weights(both, "local/c-all")
    verified(both)


@pytest.mark.slow
def test_streams_with_other_weights_and_methods_keep_what_their_states_have(streams: Streams, repo_name: Names) -> None:
    heavy, both, whole = repo_name("heavy"), repo_name("both"), repo_name("whole")
    streams.publish(heavy, streams.second, merge_method="iso_c", parameters={"weight": 2.0, "scaling": 1.2})
    streams.combine("local/c-1", heavy, into=both)
    models = [
        {"model": streams.stage.towers[streams.first], "name": streams.first},
        {"model": streams.stage.towers[streams.second], "name": streams.second, "parameters": {"weight": 2.0}},
    ]
    streams.publish(whole, models=models)
    assert same_weights(both, whole)
    verified(both)


def test_what_does_not_add_up_is_refused_before_a_state_is_read(
    stage: Stage, streams: Streams, repo_name: Names, tmp_path: Path
) -> None:
    into, projected, stateless, cast, linear = map(repo_name, ("into", "opcm", "none", "cast", "linear"))
    streams.publish(projected, streams.first, merge_method="opcm")
    streams.publish(stateless, streams.second, publish={"repo": stateless, "state": "none"})
    streams.publish(cast, streams.second, dtype="bfloat16")
    streams.publish(linear, streams.second, merge_method="linear")
    cases: list[tuple[tuple[str, ...], str]] = [
        (("local/c-1",), "nothing to be combined with"),
        (("local/c-1", "local/c-1"), "named twice"),
        (("local/c-1", projected), "states of opcm cannot be added"),
        (("local/c-1", stateless), "has no state after step-01"),
        (("local/c-1", cast), "another `dtype`"),
        (("local/c-1", linear), "a state of linear, local/c-1"),
    ]
    for repos, message in cases:
        with pytest.raises(hubmerge.HubmergeError, match=message):
            streams.combine(*repos, into=into)
    assert not HfApi().repo_exists(into)
    with pytest.raises(hubmerge.UsageError, match="has no place"):
        streams.combine("local/c-1", "local/c-2")
    with pytest.raises(hubmerge.UsageError, match="folder not found"):
        streams.combine(str(tmp_path / "missing"), "local/c-2", into=into)


@pytest.mark.slow
def test_a_stream_over_another_base_model_is_refused(streams: Streams, repo_name: Names) -> None:
    api, base, copied = HfApi(), repo_name("base"), repo_name("copied")
    folder = snapshot_download(streams.stage.base)
    api.create_repo(base)
    api.upload_folder(repo_id=base, folder_path=folder)
    streams.publish(copied, streams.third, base_model=base)
    both = repo_name("both")
    streams.combine("local/c-1", "local/c-2", copied, into=both)
    assert same_weights(both, "local/c-all")
    values = load_file(Path(folder) / "model.safetensors")
    save_file({name: value * 1.5 for name, value in values.items()}, streams.folder / "model.safetensors")
    api.upload_file(
        repo_id=base, path_or_fileobj=streams.folder / "model.safetensors", path_in_repo="model.safetensors"
    )
    other = streams.publish(repo_name("other"), streams.third, base_model=base)
    with pytest.raises(hubmerge.UsageError, match="task vectors of two base models do not add up"):
        streams.combine("local/c-1", other, into=repo_name("none"))


def test_parts_are_added_again_without_their_checkpoints(streams: Streams, repo_name: Names) -> None:
    api, gone, part, both = HfApi(), repo_name("gone"), repo_name("part"), repo_name("both")
    api.create_repo(gone)
    api.upload_folder(repo_id=gone, folder_path=snapshot_download(streams.stage.towers[streams.second]))
    streams.publish(part, models=[{"model": gone, "name": "gone"}])
    streams.combine("local/c-1", part, into=both)
    quick = hubmerge.verify(both, from_parts=True, progress=None)
    assert (quick.differences, [one.subject for one in quick.unknown]) == ((), ["parts"])
    assert quick.recomputed
    assert main(["verify", both, "--from-parts", "--quiet"]) == 7
    verified(both)
    api.delete_repo(gone)
    shutil.rmtree(Path(HF_HUB_CACHE) / f"models--{gone.replace('/', '--')}")
    verdict = hubmerge.verify(both, progress=None)
    assert not verdict.differences, str(verdict)
    assert verdict.recomputed
    assert {"parts", "recomputation"} <= {one.subject for one in verdict.unknown}
    api.delete_repo(part)
    verdict = hubmerge.verify(both, from_parts=True, progress=None)
    assert not verdict.recomputed
    assert "cannot be read" in str(verdict)


@pytest.mark.slow
def test_towers_are_combined(streams: Streams, repo_name: Names) -> None:
    repos = [repo_name("tower") for _ in range(3)]
    for repo, names in zip(repos, ((streams.first,), (streams.second,), (streams.first, streams.second)), strict=True):
        streams.publish(repo, *names, publish={"repo": repo, "model": "tower"})
    both = repo_name("both")
    streams.combine(*repos[:2], into=both)
    assert same_weights(both, repos[2])
    verified(both)


def test_edits_of_the_card_and_a_private_checkpoint_are_named(
    streams: Streams, repo_name: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    both, work = repo_name("both"), ["--work-dir", str(streams.folder / "work")]
    streams.combine("local/c-1", "local/c-3", into=both)
    card = Path(hf_hub_download(both, "README.md")).read_text(encoding="utf-8")
    edited = card.replace(f"{BEGIN}\n", f"{BEGIN}\nWords of mine.\n")
    HfApi().upload_file(path_or_fileobj=edited.encode(), path_in_repo="README.md", repo_id=both)
    private = streams.stage.towers[streams.second]
    HfApi().update_repo_settings(private, private=True)
    try:
        assert main(["combine", both, "local/c-2", "--into", both, *work]) == 0
    finally:
        HfApi().update_repo_settings(private, private=False)
    output = capsys.readouterr().out
    assert f"warning: README.md of {both} was changed where hubmerge writes" in output
    assert f"fewer people can read these inputs: {private} (private)" in output


def test_the_command_prints_json(streams: Streams, repo_name: Names, capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--work-dir", str(streams.folder / "work"), "--json"]
    assert main(["combine", "local/c-1", "local/c-3", "--into", repo_name("both"), *work]) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (done["event"], done["steps"], done["added"], done["subtracted"]) == ("done", 2, 2, [])
    assert main(["combine", "local/c-1", "local/c-all", "--into", repo_name("none"), *work]) == 2
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (error["repo"], error["code"]) == ("local/c-all", "usage")
    assert main(["combine", "local/c-1", "--parts", "2", "--into", "local/x", *work]) == 2
    assert "--parts goes with --recipe" in capsys.readouterr().out
