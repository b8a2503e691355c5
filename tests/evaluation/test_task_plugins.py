"""Task kinds of other distributions: the example in tests/examples/plugin, and faulty ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download

from hubmerge.errors import EvaluationError, MachineError
from hubmerge.evaluation import TASK_KIND_NAMES, task_kind_named, task_kind_names, task_kind_plugin
from hubmerge.support.plugins import installed_plugins
from tests.evaluation.small_task import make_task
from tests.plugins import distribution, faulty, site
from tests.stage import Stage

__all__ = ["faulty", "site"]  # fixtures

Command = Callable[..., tuple[int, str, str]]
KIND = "mirrored-image-classification"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the example on the import path of this process."""
    monkeypatch.syspath_prepend(str(site))
    installed_plugins.cache_clear()
    yield
    installed_plugins.cache_clear()


def test_the_kind_of_another_distribution_scores(
    installed: None, clip_folders: dict[str, Path], rows: Any, tmp_path: Path
) -> None:
    """It scores images as zero-shot classification scores their mirror images."""
    import numpy as np

    from hubmerge.checkpoints import open_checkpoint

    assert KIND in task_kind_names()
    plugin = task_kind_plugin(KIND)
    assert plugin is not None
    assert (plugin.distribution, plugin.version) == ("moving-average-plugin", "1.2.3")
    kind, plain = task_kind_named(KIND), task_kind_named("zero-shot-image-classification")
    base = open_checkpoint(clip_folders["base"])
    scorer = kind.open_scorer(clip_folders["base"], base, identity="b" * 40)
    mirrored: Any = kind.prepare(make_task(kind=KIND), rows, scorer, tmp_path, dataset_commit="c" * 40)
    expected: Any = plain.prepare(make_task(), rows, scorer, tmp_path, dataset_commit="c" * 40)
    np.testing.assert_array_equal(mirrored.pixels[..., ::-1], expected.pixels)
    assert not np.array_equal(mirrored.logits(scorer), expected.logits(scorer))
    assert set(mirrored.score(scorer)) == {"accuracy"}


def test_the_card_of_a_run_names_the_distribution(
    installed: None, stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Any
) -> None:
    repo, first = repo_name("mirrored"), next(iter(stage.towers))
    recipe = stage.recipe(repo, entries=(first,), merge_method="plugin_average")
    recipe["evaluate"]["tasks"][0]["kind"] = KIND
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["versions"]["moving-average-plugin"] == "1.2.3"
    assert set(report["steps"][0]["scores"][first]) == {"accuracy"}
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "the method `plugin_average` of `moving-average-plugin` 1.2.3" in card
    assert f"The task kind `{KIND}` is that of `moving-average-plugin` 1.2.3." in card
    assert "moving-average-plugin 1.2.3 from where its authors publish it" in card
    assert "pip install" not in card
    assert "pipeline_tag" not in card
    status, output, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, output + errors
    assert "(recomputed and compared): 0 differences, 0 checks not possible" in output


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EvaluationError, match="unknown task kind 'nonesuch'") as caught:
        task_kind_named("nonesuch")
    assert caught.value.hint == f"one of {', '.join(TASK_KIND_NAMES)}"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('broken on import')", "cannot be imported: ValueError: broken on import"),
        ("kind = 3", "is not a task kind: it has no method open_scorer and no method prepare"),
        ("class kind:\n    def __init__(self, needed): ...", "cannot be constructed: TypeError"),
        (
            "class kind:\n    name = 'other'\n    def open_scorer(self): ...\n    def prepare(self): ...",
            "has the attribute name = 'other'",
        ),
    ],
)
def test_a_faulty_kind_is_reported_when_a_task_needs_it(
    faulty: Path, code: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"faulty_kind_{len(code)}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    distribution(faulty, name, "hubmerge.tasks", f"mine = {name}:kind", code)
    assert "mine" in task_kind_names()
    with pytest.raises(MachineError, match=f"{name} 0.9") as caught:
        task_kind_named("mine")
    assert message in caught.value.message


def test_a_plugin_cannot_replace_a_kind_of_hubmerge(faulty: Path) -> None:
    distribution(faulty, "impostor", "hubmerge.tasks", "causal-lm = impostor:kind", "kind = 3")
    assert task_kind_names() == TASK_KIND_NAMES
    assert task_kind_plugin("causal-lm") is None
    assert task_kind_named("causal-lm").name == "causal-lm"


def test_two_kinds_of_one_name_are_refused(faulty: Path) -> None:
    distribution(faulty, "first_one", "hubmerge.tasks", "mine = first_one:kind")
    distribution(faulty, "second_one", "hubmerge.tasks", "mine = second_one:kind")
    with pytest.raises(MachineError, match=r"first_one 0\.9 and second_one 0\.9"):
        task_kind_named("mine")


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, hubmerge.evaluation, hubmerge.evaluation.kinds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
