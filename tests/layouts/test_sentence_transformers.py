"""Models of sentence-transformers: the body is merged, modules and pooling are copied, and the card says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.cards.data import front_matter
from tests.checkpoints.families import LANGUAGE
from tests.run.test_warnings import write

Command = Callable[..., tuple[int, str, str]]
PARTS = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
MODULES = [
    {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for number, (path, kind) in enumerate(PARTS)
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmno"]


def save_model(folder: Path, seed: int, pooling: dict[str, Any]) -> Path:
    """Save a model as sentence-transformers does, with a tokenizer and a dense layer."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.BertModel(transformers.BertConfig(**LANGUAGE)).save_pretrained(folder)
        dense = {"linear.weight": torch.randn(8, 16), "linear.bias": torch.randn(8)}
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    for path, _ in PARTS[1:]:
        (folder / path).mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    sizes: dict[str, Any] = {
        "in_features": 16,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "2_Dense" / "config.json").write_text(json.dumps(sizes))
    save_file(dense, folder / "2_Dense" / "model.safetensors")
    return folder


OLD = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
NEW = {"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": True}


@pytest.mark.parametrize("pooling", [OLD, NEW], ids=["version 2", "version 6"])
def test_modules_are_copied_and_the_card_says_so(hubmerge: Command, tmp_path: Path, pooling: dict[str, Any]) -> None:
    base, one, two = (save_model(tmp_path / name, seed, pooling) for seed, name in enumerate(("base", "one", "two")))
    out = tmp_path / "out"
    status, text, errors = hubmerge("run", write(tmp_path, base, one, two, merge_method="weight_average"), "--out", out)
    assert status == 0, errors
    assert "not merged: the base model's 2_Dense/model.safetensors, whatever the checkpoints have there" in text
    for name in ("modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    card = (out / "README.md").read_text()
    assert front_matter(card)["library_name"] == "sentence-transformers"
    assert front_matter(card)["pipeline_tag"] == "sentence-similarity"
    assert (
        "Modules, in order: `Transformer` (merged), `Pooling` (mean), `Dense` (16 to 8 values, weights in `2_Dense` "
        "are the base model's and not merged), `Normalize`."
    ) in card
    assert 'SentenceTransformer("path/to/this/folder")' in card


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_loads_the_merged_model(hubmerge: Command, tmp_path: Path) -> None:
    base, one, two = (save_model(tmp_path / name, seed, NEW) for seed, name in enumerate(("base", "one", "two")))
    out = tmp_path / "out"
    assert hubmerge("run", write(tmp_path, base, one, two, merge_method="weight_average"), "--out", out)[0] == 0
    code = (out / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    values: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(out)), values)  # noqa: S102 - code that hubmerge wrote
    assert values["embeddings"].shape == (2, 8)
    assert [type(module).__name__ for module in values["model"]] == [kind for _, kind in PARTS]
    merged, tuned = values["model"][0].state_dict(), [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, value in tuned[0].items():
        if value.is_floating_point():
            found = next(merged[key] for key in merged if key.endswith(name))
            torch.testing.assert_close(found, (value + tuned[1][name]) / 2, rtol=1e-5, atol=1e-6)
