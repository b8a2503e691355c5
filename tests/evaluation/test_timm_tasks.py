"""Images scored by models of timm with heads of their own, in a Python that has timm beside the packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.base_files import BaseFiles, check_image_processor
from hubmerge.evaluation.own_head import HeadFacts
from hubmerge.evaluation.timm_model import build_timm

BESIDE = Path(sys.prefix) / "other-libraries"
TIMM = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": {"label_names": ["a", "b", "c"]}}
PROGRAM = """
import json, logging, sys
from pathlib import Path
import torch
if not torch.ops.torchvision.__dict__.get("nms"):
    # timm imports torchvision; its kernels may be of another build than torch, and are not used.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import datasets, numpy as np, timm, yaml
from PIL import Image
from timm.models._hub import save_for_hf
from hubmerge import load_head
from hubmerge.cli.main import main

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)
CLASSES = {"base": list("abcd"), "one": ["x", "y", "z"], "two": ["u", "v"], "same": list("abcd")}

def save(name, make, sizes):
    torch.manual_seed(len(name) + ord(name[0]))
    model = timm.create_model(make, num_classes=len(CLASSES[name]), **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    config = {"label_names": CLASSES[name]}
    args = {**sizes, "num_classes": len(CLASSES[name])}
    save_for_hf(model, folder / make / name, config, model_args=args, safe_serialization=True)

def save_rows(name, make):
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (40, 37 + row, 3), dtype=np.uint8)) for row in range(9)]
    labels = datasets.ClassLabel(names=CLASSES[name])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    rows = datasets.Dataset.from_dict(
        {"image": images, "label": [row % len(CLASSES[name]) for row in range(9)]}, features=features
    )
    (folder / make / f"{name}-images").mkdir(parents=True)
    rows.to_parquet(folder / make / f"{name}-images" / "test.parquet")
    return rows

def accuracy(model, rows):
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    model.eval()
    with torch.no_grad():
        found = [int(model(transform(row["image"].convert("RGB"))[None]).argmax()) for row in rows]
    return float(np.mean(np.array(found) == np.array(rows["label"])))

for make, sizes in (
    ("vit_tiny_patch16_224", dict(img_size=32, embed_dim=16, depth=1, num_heads=2)),
    ("resnet10t", dict(channels=(8, 8, 8, 8), stem_width=8)),
):
    rows = {}
    for name in CLASSES:
        save(name, make, sizes)
        rows[name] = save_rows(name, make)
    place = folder / make
    tasks = [
        {"name": name, "kind": "image-classification", "dataset": {"path": str(place / f"{name}-images")}}
        for name in ("one", "two", "same")
    ]
    keys = {
        "merge_method": "weight_average", "base_model": str(place / "base"),
        "models": [{"model": str(place / name), "name": name} for name in ("one", "two")],
        "evaluate": {"tasks": tasks},
    }
    recipe = folder / f"{make}.yaml"
    recipe.write_text(yaml.safe_dump(keys))
    assert main(["plan", str(recipe)]) == 0
    out = folder / f"{make}-out"
    assert main(["run", str(recipe), "--out", str(out), "--work-dir", str(folder / "work")]) == 0
    report = json.loads((out / "hubmerge.json").read_text())
    for name in ("one", "two"):
        own = timm.create_model(f"local-dir:{place / name}", pretrained=True)
        assert report["own_scores"][name]["accuracy"] == accuracy(own, rows[name])
        assert report["steps"][-1]["scores"][name]["accuracy"] == accuracy(load_head(out, name), rows[name])
    merged = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert report["steps"][-1]["scores"]["same"]["accuracy"] == accuracy(merged, rows["same"])
print("all scored")
"""


def test_the_classes_and_the_image_settings_of_a_timm_model_are_in_its_config() -> None:
    facts = HeadFacts("pets", None, {"num_classes": 2, "label_names": ["cat", "dog"]}, 2)
    assert facts.classes(TIMM) == (("cat", "dog"), 2)
    assert facts.fits("image-classification", timm=True)
    assert not facts.fits("text-classification", timm=True)
    check_image_processor(BaseFiles("base", TIMM, frozenset({"config.json", "model.safetensors"})))


def test_a_missing_timm_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EvaluationError, match=r"timm cannot be imported: .*; scores of a timm model need it") as caught:
        build_timm(json.loads(json.dumps(TIMM)), {})
    assert caught.value.hint == "pip install timm"


@pytest.mark.slow
def test_timm_models_are_scored_as_timm_scores_them(tmp_path: Path) -> None:
    if not BESIDE.is_dir():
        pytest.skip("timm is not installed")
    paths = [str(Path(__file__).parents[2]), str(BESIDE)]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.strip().endswith("all scored")
