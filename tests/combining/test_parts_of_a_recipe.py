"""Parts of one recipe that several machines merge, combined into the stream of the whole recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubmerge
from hubmerge.api.combining import part_repos
from hubmerge.cli.main import main
from hubmerge.stream.partition import Partition
from tests.combining.test_combine import report_of, same_weights, verified
from tests.stage import Stage

Names = Callable[[str], str]


@pytest.mark.parametrize("length", [1, 5, 8, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_cover_a_stream_once_and_in_order(length: int, count: int) -> None:
    places = [list(Partition(number, count).of(length)) for number in range(1, count + 1)]
    assert [place for part in places for place in part] == list(range(length))
    assert max(map(len, places)) - min(map(len, places)) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "2", "2/", "a/b", "-1/2", "1/0", ""])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(hubmerge.UsageError, match="is not a part"):
        Partition.parse(text)


class Machines:
    """A recipe, and two machines with work folders of their own."""

    def __init__(self, stage: Stage, folder: Path, repo: str | None, **changes: Any) -> None:
        self.stage, self.folder, self.repo = stage, folder, repo
        keys = stage.recipe(repo, **{"merge_method": "wudi", "evaluate": None, **changes})
        self.recipe = stage.write(folder, keys)

    def run(self, number: int, *options: str) -> int:
        work = str(self.folder / f"machine-{number}")
        return main(["run", str(self.recipe), "--part", f"{number}/2", "--work-dir", work, *options])

    def combine(self, *options: str) -> int:
        return main(
            ["combine", "--recipe", str(self.recipe), "--work-dir", str(self.folder / "machine-1"), *options, "--json"]
        )


def last_event(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_parts_become_the_stream_of_the_whole_recipe(
    stage: Stage, tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    repo, whole, first = repo_name("parts"), repo_name("whole"), next(iter(stage.towers))
    tasks = stage.recipe(None, entries=(first,))["evaluate"]
    machines = Machines(stage, tmp_path, repo, evaluate=tasks)
    assert (machines.run(2), machines.run(1)) == (0, 0)
    assert "part 2/2 is not scored: `hubmerge combine --recipe" in "".join(capsys.readouterr())
    assert [len(report_of(f"{repo}-part-{number}-of-2")["steps"]) for number in (1, 2)] == [2, 1]
    assert machines.combine("--parts", "2") == 0
    assert last_event(capsys)["added"] == 3
    hubmerge.run(
        stage.recipe(whole, merge_method="wudi", evaluate=None), work_dir=tmp_path / "work", progress=None
    ).finish()
    assert same_weights(repo, whole)
    found, expected = report_of(repo), report_of(whole)
    for key in ("name", "reference", "commit", "licenses", "chain_digest"):
        assert [step[key] for step in found["steps"]] == [step[key] for step in expected["steps"]]
    assert first in found["steps"][-1]["scores"]
    verified(repo)
    assert main(["run", str(machines.recipe), "--work-dir", str(tmp_path / "elsewhere"), "--json"]) == 0
    assert last_event(capsys)["steps"] == 0
    assert machines.combine("--parts", "2") == 0
    assert last_event(capsys)["added"] == 0


def test_parts_in_folders_are_combined_without_the_hub(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = Machines(stage, tmp_path, None)
    folders = [str(tmp_path / f"part-{number}") for number in (1, 2)]
    for number, folder in enumerate(folders, start=1):
        assert machines.run(number, "--out", folder) == 0
    assert machines.combine(*reversed(folders), "--out", str(tmp_path / "whole")) == 0
    assert last_event(capsys)["steps"] == 3
    verified(str(tmp_path / "whole"))


@pytest.mark.slow
def test_a_published_stream_grows_by_other_streams(
    stage: Stage, tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    repo, new = repo_name("grows"), repo_name("new")
    first, second, third = stage.towers
    work: dict[str, Any] = {"work_dir": tmp_path / "work", "progress": None}
    keys: dict[str, Any] = {"merge_method": "wudi", "evaluate": None}
    hubmerge.run(stage.recipe(repo, entries=(first, second), **keys), **work).finish()
    before = report_of(repo)["steps"]
    hubmerge.run(stage.recipe(new, entries=(third,), **keys), **work).finish()
    whole = stage.recipe(repo, **keys)
    with pytest.raises(hubmerge.TargetError, match="has 2 steps of this stream already"):
        hubmerge.combine([repo_of_copy(stage, tmp_path, repo_name, (first, second)), new], recipe=whole, **work)
    made = hubmerge.combine([repo, new], recipe=whole, **work)
    assert made.added == 1
    found = report_of(repo)["steps"]
    assert [step["digest"] for step in found[:2]] == [step["digest"] for step in before]
    assert len(found) == 3
    verified(repo)


def repo_of_copy(stage: Stage, folder: Path, repo_name: Names, entries: tuple[str, ...]) -> str:
    repo = repo_name("copy")
    recipe = stage.recipe(repo, entries=entries, merge_method="wudi", evaluate=None)
    hubmerge.run(recipe, work_dir=folder / "work", progress=None).finish()
    return repo


def test_a_part_is_missing_or_foreign(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machines = Machines(stage, tmp_path, None)
    names = list(stage.towers)
    folder, other = str(tmp_path / "part"), str(tmp_path / "other")
    assert machines.run(2, "--out", folder) == 0
    recipe = stage.recipe(None, entries=(names[2],), merge_method="wudi", evaluate=None, parameters={"ridge": 0.5})
    hubmerge.StepRun(recipe, out=other, state=True, work_dir=tmp_path / "work", progress=None).finish()
    for streams, message in (
        ((folder, folder), "named twice"),
        ((folder, other), "another `parameters`"),
    ):
        assert machines.combine(*streams, "--out", str(tmp_path / "whole")) == 2
        assert message in last_event(capsys)["message"]
    plain = stage.recipe(None, entries=(names[0],), merge_method="wudi", evaluate=None)
    third = str(tmp_path / "third")
    hubmerge.StepRun(plain, out=third, state=True, work_dir=tmp_path / "work", progress=None).finish()
    assert machines.combine(folder, third, "--out", str(tmp_path / "whole")) == 2
    assert f"no part merges {names[1]}" in last_event(capsys)["message"]
    assert not (tmp_path / "whole").exists()


def test_methods_and_recipes_without_parts_are_refused(stage: Stage, tmp_path: Path) -> None:
    first = next(iter(stage.towers))
    opcm = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    with pytest.raises(hubmerge.UsageError, match="opcm cannot merge a stream in parts"):
        hubmerge.load_part(opcm, "1/2")
    keys = stage.recipe(None, merge_method="wudi", evaluate=None)
    for part in ("1/4", "4/4"):
        with pytest.raises(hubmerge.UsageError, match=f"--part {part}: .* has 3 entries: too few for so many parts"):
            hubmerge.load_part(keys, part)
    with pytest.raises(hubmerge.UsageError, match=r"--parts 4: .* has 3 entries: too few for so many parts"):
        part_repos({**keys, "publish": {"repo": "me/merged"}}, 4)
    taken_out = {"model": stage.towers[first], "revoke": first}
    with pytest.raises(hubmerge.UsageError, match=f"takes out {first}, which another part merges"):
        hubmerge.load_part({**keys, "models": [*keys["models"], taken_out]}, "2/2")
    stages = tmp_path / "stages.yaml"
    documents = [
        {"name": "one", **keys, "models": keys["models"][:2]},
        {**keys, "models": [{"model": "one"}, keys["models"][2]]},
    ]
    stages.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
    with pytest.raises(hubmerge.UsageError, match="has several documents"):
        hubmerge.load_part(stages, "1/2")
    with pytest.raises(hubmerge.UsageError, match="has queries"):
        hubmerge.load_part({**keys, "models": [{"query": "hubmerge-demo/tiny-clip_*"}]}, "1/2")
