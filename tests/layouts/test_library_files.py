"""Models in the files of diffusers, timm, open_clip and Mistral are merged and written under the same names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from safetensors import safe_open

from hubmerge.cards.data import front_matter
from hubmerge.checkpoints import open_checkpoint
from tests.layouts.formats import FORMATS, Format, Tensors
from tests.run.test_warnings import write
from tests.stream.test_sources import push

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
WEIGHTS = (".safetensors", ".bin", ".pth")


def weights_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.suffix in WEIGHTS))


def read_all(folder: Path) -> Tensors:
    with open_checkpoint(folder) as opened:
        return {name: opened.read(name) for name in opened.tensors}


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata() or {})


def save_three(made: Format, folder: Path) -> list[Path]:
    places = [folder / name for name in ("base", "one", "two")]
    for seed, place in enumerate(places):
        made.save(place, seed)
    return places


@pytest.mark.parametrize("made", FORMATS, ids=lambda made: made.label)
def test_files_keep_their_names_metadata_and_config(
    hubmerge: Command, tmp_path: Path, repo_name: Names, made: Format
) -> None:
    base, *checkpoints = save_three(made, tmp_path)
    assert weights_in(base) == made.read
    out = tmp_path / "out"
    recipe = write(tmp_path, base, *checkpoints, merge_method="weight_average", **made.recipe_for(repo_name()))
    status, text, errors = hubmerge("run", recipe, "--out", out)
    assert status == 0, errors + text
    assert weights_in(out) == made.written
    one, two = map(read_all, checkpoints)
    for name, value in read_all(out).items():
        torch.testing.assert_close(value.double(), (one[name].double() + two[name].double()) / 2, rtol=1e-5, atol=1e-6)
    if made.read == made.written:
        kept = metadata_of(base / made.read[0]) if made.library != "timm" else {}
        assert metadata_of(out / made.written[0]) == {**kept, "format": "pt"}
    for config in {"config.json", "open_clip_config.json", "params.json"} & {path.name for path in base.iterdir()}:
        same = (out / config).read_bytes() == (base / config).read_bytes()
        assert same or made.library == "transformers"
    card = (out / "README.md").read_text()
    assert front_matter(card).get("library_name") == made.library_name
    if made.load is not None:
        torch.testing.assert_close(made.load(out), read_all(out), check_dtype=False)


@pytest.mark.parametrize("made", [FORMATS[0], FORMATS[8], FORMATS[10], FORMATS[12]], ids=lambda made: made.label)
def test_plan_says_how_loading_was_checked(hubmerge: Command, tmp_path: Path, made: Format) -> None:
    recipe = write(tmp_path, *save_three(made, tmp_path))
    status, text, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    lines = [line for line in text.splitlines() if line.startswith("loading ")]
    if made.library == "diffusers":
        assert lines == []
    else:
        reason = "no single library" if made.library_name is None else f"{made.library} is not installed"
        assert any("names and shapes are those of the base model's files" in line and reason in line for line in lines)


def test_a_config_that_does_not_fit_a_model_of_diffusers_is_refused(hubmerge: Command, tmp_path: Path) -> None:
    base, *checkpoints = save_three(FORMATS[0], tmp_path)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 12}))
    status, text, errors = hubmerge("plan", write(tmp_path, base, *checkpoints))
    assert status == 4
    assert "attn2.to_k.weight' is 16 x 8 in the files and 16 x 12 by the config" in " ".join((text + errors).split())


@pytest.mark.parametrize("made", [FORMATS[6], FORMATS[10]], ids=lambda made: made.label)
def test_published_models_of_other_libraries_verify(
    hubmerge: Command, tmp_path: Path, repo_name: Names, made: Format
) -> None:
    repo = repo_name()
    base, one, two = save_three(made, tmp_path)
    for checkpoints in ([one], [one, two]):
        recipe = write(tmp_path, base, *checkpoints, merge_method="task_arithmetic", **made.recipe_for(repo))
        status, text, errors = hubmerge("run", recipe)
        assert status == 0, errors + text
    status, text, errors = hubmerge("verify", repo)
    assert status == 0, errors + text
    assert "differs" not in text


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument:UserWarning")
@pytest.mark.parametrize("fetching", ["cache", "ranges"])
def test_a_model_in_a_pipeline_on_the_hub(hubmerge: Command, tmp_path: Path, repo_name: Names, fetching: str) -> None:
    repos = [repo_name("pipeline") for _ in range(3)]
    for repo, folder in zip(repos, save_three(FORMATS[0], tmp_path), strict=True):
        push(repo, folder, "unet")
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="model_index.json", repo_id=repo)
    base, one, two = (f"{repo}/unet" for repo in repos)
    target = repo_name("merged")
    keys = {
        "merge_method": "weight_average",
        "base_model": base,
        "models": [{"model": one, "name": "one"}, {"model": two, "name": "two"}],
        "publish": {"repo": target},
        "fetch": fetching,
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(keys))
    status, text, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert status == 0, errors + text
    assert weights_in(tmp_path / "out") == FORMATS[0].written
    first, second = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1:3]
    assert f'DiffusionPipeline.from_pretrained("{repos[0]}", revision=' in second
    assert "unet=model)" in second
    values: dict[str, Any] = {}
    exec(first.partition("```")[0], values)  # noqa: S102 - code that hubmerge wrote
    torch.testing.assert_close(dict(values["model"].state_dict()), read_all(tmp_path / "out"))
