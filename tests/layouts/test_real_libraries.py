"""timm and open_clip load merged models, in a Python that has them; a folder beside the packages may hold them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE = Path(sys.prefix) / "other-libraries"
PROGRAM = """
import json, logging, sys
from pathlib import Path
import torch
if not torch.ops.torchvision.__dict__.get("nms"):
    # timm and open_clip import torchvision; its kernels may be of another build than torch, and are not used.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import open_clip, timm
import yaml
from safetensors.torch import load_file, save_file
from timm.models._hub import save_for_hf
from hubmerge.cli.main import main
from tests.layouts.sizes import OPEN_CLIP_CONFIG

folder = Path(sys.argv[1])
logging.disable(logging.WARNING)

def vit(seed):
    torch.manual_seed(seed)
    sizes = dict(img_size=32, embed_dim=16, depth=1, num_heads=2)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **sizes)
    save_for_hf(model, folder / f"vit{seed}", {"label_names": list("abc")}, model_args=sizes, safe_serialization=True)

def resnet(seed):
    torch.manual_seed(seed)
    sizes = dict(channels=(8, 8, 8, 8), stem_width=8)
    model = timm.create_model("resnet10t", num_classes=3, **sizes)
    place = folder / f"resnet{seed}"
    save_for_hf(model, place, {"label_names": list("abc")}, model_args=sizes, safe_serialization=True)

def clip(seed):
    place = folder / f"clip{seed}"
    place.mkdir()
    (place / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP_CONFIG))
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{place}", load_weights=False)
    if seed < 2:
        save_file(model.state_dict(), place / "open_clip_model.safetensors")
    else:
        torch.save(model.state_dict(), place / "open_clip_pytorch_model.bin")

def load_timm(place):
    return timm.create_model(f"local-dir:{place}", pretrained=True).state_dict()

def load_clip(place):
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{place}")
    assert open_clip.get_tokenizer(f"local-dir:{place}") is not None
    return model.state_dict()

for name, make, load in (("vit", vit, load_timm), ("resnet", resnet, load_timm), ("clip", clip, load_clip)):
    for seed in (0, 1, 2):
        make(seed)
    recipe = folder / f"{name}.yaml"
    models = [{"model": f"./{name}{seed}", "name": str(seed)} for seed in (1, 2)]
    keys = {"merge_method": "weight_average", "base_model": f"./{name}0", "models": models}
    recipe.write_text(yaml.safe_dump(keys))
    assert main(["plan", str(recipe)]) == 0
    out = folder / f"{name}-out"
    assert main(["run", str(recipe), "--out", str(out), "--work-dir", str(folder / "work")]) == 0
    loaded, first, second = load(out), load(folder / f"{name}1"), load(folder / f"{name}2")
    for key, value in first.items():
        if value.is_floating_point():
            torch.testing.assert_close(loaded[key], (value + second[key]) / 2, rtol=1e-4, atol=1e-5)
    code = (out / "README.md").read_text().split("```python\\n")[1].split("```")[0]
    exec(code.replace("path/to/this/folder", str(out)))
print("all loaded")
"""


@pytest.mark.slow
def test_timm_and_open_clip_load_merged_models(tmp_path: Path) -> None:
    if not BESIDE.is_dir():
        pytest.skip("timm and open_clip are not installed")
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
    assert found.stdout.strip().endswith("all loaded")
    assert "names and shapes are those of the base model's files" not in found.stdout  # the libraries were asked
