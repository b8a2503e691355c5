"""Models with LoRA adapters of the peft library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import AdaptedCheckpoint, Adapter, open_adapter, open_checkpoint
from tests.checkpoints.families import make, save

# peft and transformers warn about each other.
IGNORED_WARNINGS = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

QV = ["q_proj", "v_proj"]


def adapt(family: str, options: Mapping[str, Any], folder: Path) -> tuple[Path, Path, Path]:
    """Return the folders of a model in float64, of an adapter for it, and of the two merged by peft."""
    model = make(family).double()
    save(model, folder / "model")
    adapted = train(model, options)
    adapted.save_pretrained(folder / "adapter")
    save(adapted.merge_and_unload(), folder / "merged")
    return folder / "model", folder / "adapter", folder / "merged"


def train(model: Any, options: Mapping[str, Any]) -> Any:
    """Return the model with an adapter of peft; its values and those of the modules it saves are random."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 12, **options}))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name or parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype), alpha=0.05)
    return adapted


def adapter_of_peft(folder: Path) -> Adapter:
    found = open_adapter(folder)
    assert isinstance(found, Adapter)
    return found


def opened(model: Path, adapter: Path) -> AdaptedCheckpoint:
    return AdaptedCheckpoint(open_checkpoint(model, "model"), open_adapter(adapter, "adapter"))
