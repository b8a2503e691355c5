"""Load checks run once, and again where config, names or shapes differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import check_loads, open_checkpoint
from hubmerge.errors import CheckpointError
from tests.checkpoints.models import save as save_model
from tests.support.stored import stored_answers

pytestmark = pytest.mark.usefixtures("empty_cache")


def loading(folder: Path) -> tuple[str, ...]:
    with open_checkpoint(folder, "it") as checkpoint:
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        return check_loads(checkpoint.config, shapes, shapes, "it")


@pytest.mark.parametrize("family", ["CLIPModel", "BertForMaskedLM"])
def test_a_load_check_imports_transformers_once_for_all_runs(family: str, tmp_path: Path) -> None:
    folder = save_model(family, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": [family.replace("ForMaskedLM", "Model")]})
    )
    found = loading(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    program = (
        "import sys; from pathlib import Path; from tests.checkpoints.planning.test_stored_load_checks import loading;"
        "print(*loading(Path(sys.argv[1])), 'transformers.modeling_utils' in sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout == "\n".join([*found, "False", ""])


@pytest.mark.parametrize("change", ["config", "shape", "layer"])
def test_a_model_that_does_not_load_is_refused_every_time(change: str, tmp_path: Path) -> None:
    folder = save_model("CLIPModel", tmp_path / "model")
    assert loading(folder) == ()
    tensors = load_file(folder / "model.safetensors")
    name = "vision_model.embeddings.class_embedding"
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["hidden_size"] *= 2
        (folder / "config.json").write_text(json.dumps(config))
    elif change == "shape":
        tensors[name] = tensors[name].repeat(2)
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"^it/config\.json"):
            loading(folder)


@pytest.mark.parametrize("damage", ['{"answer": {}}', '{"answer": {"missing": []}}', '{"answer": [1]}'])
def test_a_damaged_load_check_is_repeated(damage: str, tmp_path: Path) -> None:
    folder = save_model("CLIPModel", tmp_path / "model")
    assert loading(folder) == ()
    for file in stored_answers():
        file.write_text(damage)
    assert loading(folder) == ()
