"""Averages of models of many families agree with torch, and transformers loads all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import open_checkpoint
from tests.layouts.families import MORE_FAMILIES
from tests.run.test_warnings import write

Command = Callable[..., tuple[int, str, str]]
FAST = ("MistralForCausalLM", "WhisperForConditionalGeneration")


def make(family: str, seed: int) -> Any:
    """Return the base model of a family (seed 0), or one with small random changes of every parameter."""
    import transformers

    model_class = getattr(transformers, family)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**MORE_FAMILIES[family])).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters() if seed else ():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "family", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MORE_FAMILIES]
)
def test_an_average_agrees_with_torch_and_loads(hubmerge: Command, tmp_path: Path, family: str) -> None:
    import transformers

    folders = [tmp_path / name for name in ("base", "one", "two")]
    for seed, folder in enumerate(folders):
        make(family, seed).save_pretrained(folder)
    out = tmp_path / "out"
    status, text, errors = hubmerge("run", write(tmp_path, *folders, merge_method="weight_average"), "--out", out)
    assert status == 0, errors + text
    model, loaded = getattr(transformers, family).from_pretrained(out, output_loading_info=True)
    assert not any(loaded[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loaded
    one, two = (getattr(transformers, family).from_pretrained(folder).state_dict() for folder in folders[1:])
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-6, msg=name)
    with open_checkpoint(out) as merged, open_checkpoint(folders[0]) as base:
        assert set(merged.tensors) == set(base.tensors)
