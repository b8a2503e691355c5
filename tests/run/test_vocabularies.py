"""Runs with tokenizers and chat templates: published, locked, verified; warnings and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import hubmerge as api
from tests.mergekit.vocabularies import bytes_tokenizer, unigram_tokenizer, write_model, write_models

Command = Callable[..., tuple[int, str, str]]
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models of different vocabularies, and the models `same` and `swapped` with equal sizes."""
    home = write_models(tmp_path_factory.mktemp("models"))
    words = bytes_tokenizer("low lower lowest new newer newest")
    write_model(home / "same", 7, words)
    write_model(home / "swapped", 8, words)
    file = home / "swapped" / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["e"], vocabulary["l"] = vocabulary["l"], vocabulary["e"]
    file.write_text(json.dumps(content), encoding="utf-8")
    write_model(home / "pieces", 9, unigram_tokenizer("low lower lowest"))
    return home


@pytest.fixture(scope="module")
def repos(models: Path) -> dict[str, str]:
    """Return the repos of the models on the Hub, and of a tokenizer without a model."""
    client, found = HfApi(), {}
    tokenizer = models.parent / "tokenizer-alone"
    bytes_tokenizer("low lower", ["<alone>"]).save_pretrained(tokenizer)
    for name, folder in (*((name, models / name) for name in ("base", "a", "b")), ("alone", tokenizer)):
        found[name] = f"words/{name}"
        client.create_repo(found[name], exist_ok=True)
        client.upload_folder(repo_id=found[name], folder_path=folder)
    return found


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return file


def linear(*models: str | Path, **keys: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [{"model": str(one)} for one in models], **keys}


def merged(recipe: dict[str, Any], folder: Path) -> Path:
    api.run(written(folder, recipe), out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return folder / "out"


def test_a_union_is_published_extended_and_verified_and_a_changed_tokenizer_is_found(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        "tokenizer": {"tokens": {"<x>": {"source": {"kind": "zero"}}}, "pad_to_multiple_of": 8},
        "chat_template": "chatml",
        "publish": {"repo": "words/union"},
    }
    recipe = written(tmp_path, linear(repos["base"], repos["a"], **keys))
    status, output, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "tokens   union: " in output
    assert '"<x>"' in output
    assert "  zeros\n" in output
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, output + errors
    extended = written(tmp_path / "more", linear(repos["base"], repos["a"], repos["b"], **keys))
    status, output, errors = hubmerge("run", extended, "--work-dir", str(tmp_path / "work"))
    assert status == 0, output + errors
    status, output, errors = hubmerge("verify", "words/union@step-02")
    assert status == 0, output + errors
    assert "recomputed: the same bytes" in output
    report = json.loads(Path(hf_hub_download("words/union", "hubmerge.json")).read_text(encoding="utf-8"))
    found, rows = report["steps"][-1]["tokenizer"], report["steps"][-1]["tokenizer"]["rows"]
    assert (found["source"], rows % 8, sorted(found["sources"])) == (
        "union",
        0,
        [repos[name] for name in ("a", "b", "base")],
    )
    assert found["tokens"] == len(AutoTokenizer.from_pretrained("words/union"))
    card = Path(hf_hub_download("words/union", "README.md")).read_text(encoding="utf-8")
    assert f"The vocabulary has the tokens of all models, those of [`{repos['base']}`]" in card
    settings = Path(hf_hub_download("words/union", "tokenizer.json"))
    changed = settings.read_text(encoding="utf-8").replace("<x>", "<y>")
    HfApi().upload_file(repo_id="words/union", path_or_fileobj=changed.encode(), path_in_repo="tokenizer.json")
    status, output, errors = hubmerge("verify", "words/union")
    assert status != 0
    assert "tokenizer.json does not match the list of files in the report" in output + errors
    assert "tokenizer.json is not the recomputed one" in output + errors


def test_a_tokenizer_of_a_model_that_is_not_merged_is_locked(
    repos: dict[str, str], hubmerge: Command, tmp_path: Path
) -> None:
    recipe = written(tmp_path, linear(repos["base"], repos["b"], tokenizer_source=repos["alone"], fetch="ranges"))
    status, output, errors = hubmerge("run", recipe, "--out", str(tmp_path / "out"))
    assert status == 0, output + errors
    assert "a row in no model: zeros are taken for " in output + errors
    lock = yaml.safe_load((tmp_path / "out" / "hubmerge.lock.yaml").read_text(encoding="utf-8"))
    assert (lock["tokenizer"]["reference"], len(lock["tokenizer"]["commit"])) == (repos["alone"], 40)
    tokens = AutoTokenizer.from_pretrained(repos["alone"]).get_vocab()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokens
    found = load_file(tmp_path / "out" / "model.safetensors")[EMBEDDINGS]
    assert torch.equal(found[tokens["<alone>"]], torch.zeros(8))
    status, output, errors = hubmerge("verify", str(tmp_path / "out"))
    assert status == 0, output + errors
    statement = (tmp_path / "out" / "hubmerge.intoto.json").read_text(encoding="utf-8")
    assert '"tokenizer"' in statement


@pytest.mark.parametrize("method", ["opcm", "dare_linear"])
def test_other_tokens_under_one_number_of_rows_are_warned_of(
    method: str, models: Path, hubmerge: Command, tmp_path: Path
) -> None:
    keys = {"parameters": {"weight": 0.5}} if method == "dare_linear" else {}
    names = [str(models / name) for name in ("same", "swapped")]
    recipe = {"merge_method": method, "base_model": str(models / "base"), "models": [{"model": one} for one in names]}
    file = written(tmp_path, {**recipe, **keys, "chat_template": "llama3"})
    rows = json.loads((models / "base" / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    first, last = sorted((rows["e"], rows["l"]))
    letters = {rows["e"]: "e", rows["l"]: "l"}
    text = (
        f"{models / 'swapped'}: 2 rows belong to other tokens: row {first} is '{letters[last]}' and "
        f"'{letters[first]}' in the base model; row {last} is"
    )
    for command in (["check", file], ["plan", file], ["run", file, "--out", str(tmp_path / "out")]):
        status, output, errors = hubmerge(*command)
        assert status == 0, errors
        assert (output + errors).count(text) == 1, output + errors
        assert f"{models / 'same'}: " not in output + errors
    steps = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))["steps"]
    assert [sum(text in one for one in step["warnings"]) for step in steps][-1] == 1
    assert "2 rows belong to other tokens" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "<|eot_id|>" in str(AutoTokenizer.from_pretrained(tmp_path / "out").chat_template)
    status, output, errors = hubmerge("verify", str(tmp_path / "out"))
    assert status == 0, output + errors


@pytest.mark.parametrize(
    ("names", "keys", "expected"),
    [
        (("base", "pieces"), {}, "its tokenizer is Unigram, expected BPE over bytes as that of"),
        (("base", "a"), {"tokenizer": {"tokens": {"<q>": {"source": "DIR/a"}}}}, "'<q>' is not one of its tokens"),
        (("bare", "a"), {}, "it has no files of a tokenizer, which the vocabulary of the merged model begins with"),
        (("base", "uneven"), {}, "tensor 'lm_head.weight' has 3 rows of tokens and 'model.embed_tokens.weight' has"),
    ],
    ids=["kinds", "token", "base", "rows"],
)
def test_what_cannot_be_joined_is_refused_with_the_cause(
    names: tuple[str, ...], keys: dict[str, Any], expected: str, models: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("base", "a", "pieces"):
        (home / name).symlink_to(models / name)
    write_model(home / "bare", 1, bytes_tokenizer("low"))
    for path in (home / "bare").glob("tokenizer*"):
        path.unlink()
    write_model(home / "uneven", 2, bytes_tokenizer("low"))
    tensors = load_file(home / "uneven" / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros(3, 8)
    save_file(tensors, home / "uneven" / "model.safetensors", metadata={"format": "pt"})
    placed = json.loads(json.dumps(keys).replace("DIR", str(home)))
    recipe = linear(*(home / name for name in names), **(placed or {"tokenizer_source": "union"}))
    with pytest.raises(api.CheckpointError, match=expected) as caught:
        api.plan(written(tmp_path, recipe), progress=None)
    assert caught.value.hint is not None


def test_other_kinds_merge_the_tokens_that_they_share_into_the_vocabulary_of_the_base_model(
    models: Path, tmp_path: Path
) -> None:
    out = merged(linear(models / "base", models / "pieces", tokenizer_source="base"), tmp_path)
    base, other = (AutoTokenizer.from_pretrained(models / name).get_vocab() for name in ("base", "pieces"))
    rows = [load_file(folder / "model.safetensors")[EMBEDDINGS] for folder in (out, models / "base", models / "pieces")]
    for token, number in base.items():
        own = rows[2][other[token]] if token in other else rows[2].new_zeros(0)
        given = own if own.numel() else rows[1][number]
        assert torch.allclose(rows[0][number], (rows[1][number] + given) / 2, atol=1e-6) or not own.numel()
    assert base.keys() & other.keys() >= {"<s>", "</s>", "e", "w"}


def test_a_model_without_a_tokenizer_counts_as_one_with_the_tokens_of_the_base_model(
    models: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "bare", 3, bytes_tokenizer("low lower lowest new newer newest"))
    for path in (tmp_path / "bare").glob("tokenizer*"):
        path.unlink()
    recipe = linear(models / "base", tmp_path / "bare", models / "a", tokenizer_source="union")
    plan = api.plan(written(tmp_path, recipe), progress=None)
    assert any("its rows count as those of the base model's tokens" in line for line in plan.data["loading"])
    assert plan.data["tokenizer"]["table"][0]["row"] == str(models / "a")


def test_means_in_bfloat16_are_rounded_once(models: Path, tmp_path: Path) -> None:
    for name in ("base", "a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for path in (models / name).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        tensors = {key: one.bfloat16() for key, one in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = linear(*(tmp_path / name for name in ("base", "a", "b")), tokenizer_source="union")
    out = merged({**recipe, "form": "joint"}, tmp_path / "run")
    found = load_file(out / "model.safetensors")[EMBEDDINGS]
    assert found.dtype == torch.bfloat16
    number = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<both>")
    places = [AutoTokenizer.from_pretrained(tmp_path / name).convert_tokens_to_ids("<both>") for name in ("a", "b")]
    own = [
        load_file(tmp_path / name / "model.safetensors")[EMBEDDINGS][place].double()
        for name, place in zip(("a", "b"), places, strict=True)
    ]
    mean = (own[0] + own[1]) / 2
    assert torch.equal(found[number], ((mean + own[0] + own[1]) / 3).float().bfloat16())


def test_tasks_are_refused_where_the_vocabulary_changes(models: Path, tmp_path: Path) -> None:
    task = {"name": "t", "kind": "causal-lm", "metrics": ["perplexity"], "dataset": {"path": str(tmp_path)}}
    recipe = linear(models / "base", models / "a", tokenizer_source="union", evaluate={"tasks": [task]})
    with pytest.raises(api.HubmergeError, match="scored with the tokenizer of the base model"):
        api.plan(written(tmp_path, recipe), progress=None)


def test_the_chat_template_of_most_models_is_taken(models: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for path in (models / "same").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    recipe = linear(models / "base", tmp_path / "one", tmp_path / "two", chat_template="auto")
    out = merged(recipe, tmp_path / "run")
    assert (out / "chat_template.jinja").read_text(encoding="utf-8") == template
    assert (out / "tokenizer.json").read_bytes() == (models / "base" / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(out).chat_template == template


def test_numbers_of_special_tokens_are_those_of_the_model_whose_tokenizer_is_taken(
    models: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "chat", 4, bytes_tokenizer("low lower", specials=("<|im_start|>", "<|im_end|>", "</s>")))
    out = merged(linear(models / "base", tmp_path / "chat", tokenizer_source=str(tmp_path / "chat")), tmp_path / "run")
    tokens = AutoTokenizer.from_pretrained(out)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((out / name).read_text(encoding="utf-8"))
        assert (found["bos_token_id"], found["eos_token_id"]) == (tokens.bos_token_id, tokens.eos_token_id) == (0, 1)
    assert tokens.eos_token == "<|im_end|>"
    without = tmp_path / "alone"
    without.mkdir()
    for path in (tmp_path / "chat").glob("tokenizer*"):
        (without / path.name).write_bytes(path.read_bytes())
    out = merged(linear(models / "base", models / "a", tokenizer_source=str(without)), tmp_path / "other")
    found = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (found["bos_token_id"], found["eos_token_id"]) == (0, 1)


@pytest.mark.parametrize("kind", ["bert", "llava"])
def test_other_classes_are_merged_token_by_token_too(kind: str, tmp_path: Path) -> None:
    import transformers

    classes: dict[str, Any] = {
        "bert": (transformers.BertConfig, transformers.BertForMaskedLM),
        "llava": (transformers.LlavaConfig, transformers.LlavaForConditionalGeneration),
    }
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    tokenizers = [bytes_tokenizer("low lower"), bytes_tokenizer("wide wider", ["<image>"])]
    config_class, model_class = classes[kind]
    for number, made in enumerate(tokenizers):
        torch.manual_seed(number)
        text = {**small, "vocab_size": len(made)}
        keys: dict[str, Any] = text
        if kind == "llava":
            vision = {**small, "model_type": "clip_vision_model", "image_size": 4, "patch_size": 2}
            keys = {"text_config": {**text, "model_type": "llama"}, "vision_config": vision, "image_token_id": 1}
        model_class(config_class(**keys)).save_pretrained(tmp_path / str(number))
        made.save_pretrained(tmp_path / str(number))
    out = merged(linear(tmp_path / "0", tmp_path / "1", tokenizer_source="union"), tmp_path / "run")
    loaded = model_class.from_pretrained(out)
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    assert loaded.get_input_embeddings().weight.shape[0] == loaded.config.get_text_config().vocab_size == len(tokens)
    sources = [model_class.from_pretrained(tmp_path / str(number)).state_dict() for number in (0, 1)]
    own = [made.get_vocab() for made in tokenizers]
    state = loaded.state_dict()
    counted = [name for name, one in sources[0].items() if one.shape[:1] == (len(own[0]),)]
    assert len(counted) >= {"bert": 3, "llava": 2}[kind]
    for name in counted:
        for token, number in tokens.items():
            rows = [one[name][places[token]] for one, places in zip(sources, own, strict=True) if token in places]
            given = [*rows, rows[0]][:2]
            assert torch.allclose(state[name][number], (given[0] + given[1]) / 2, atol=1e-6), (name, token)


def test_stacked_layers_have_the_rows_of_the_union(models: Path, tmp_path: Path) -> None:
    ranges = [(models / "base", [0, 1]), (models / "a", [0, 2])]
    slices = [{"sources": [{"model": str(model), "layer_range": layers}]} for model, layers in ranges]
    recipe = {"merge_method": "passthrough", "slices": slices, "tokenizer_source": "union"}
    out = merged(recipe, tmp_path)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    found = load_file(out / "model.safetensors")
    assert (config["num_hidden_layers"], config["vocab_size"]) == (3, len(tokens))
    for name, own, other in ((EMBEDDINGS, "base", "a"), ("lm_head.weight", "a", "base")):
        sources = [(folder := models / one, AutoTokenizer.from_pretrained(folder).get_vocab()) for one in (own, other)]
        rows = [(load_file(folder / "model.safetensors")[name], places) for folder, places in sources]
        for token, number in tokens.items():
            values = [tensor[places[token]] for tensor, places in rows if token in places]
            assert torch.equal(found[name][number], values[0])


@pytest.mark.parametrize("entry", ["DIR/base+DIR/adapter", "DIR/adapter"])
def test_an_adapter_has_the_tokens_of_its_model(entry: str, models: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (tmp_path / "base").symlink_to(models / "base")
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(tensors, adapter / "adapter_model.safetensors")
    keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "bias": "none"}
    keys["base_model_name_or_path"] = str(tmp_path / "base")
    (adapter / "adapter_config.json").write_text(json.dumps(keys), encoding="utf-8")
    recipe = {
        "merge_method": "dare_linear",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": entry.replace("DIR", str(tmp_path))}, {"model": str(models / "b")}],
        "parameters": {"weight": 0.5},
        "tokenizer_source": "union",
    }
    found = load_file(merged(recipe, tmp_path / "run") / "model.safetensors")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "run" / "out").get_vocab()
    own = [load_file(models / one / "model.safetensors") for one in ("base", "b")]
    places = [AutoTokenizer.from_pretrained(models / one).get_vocab() for one in ("base", "b")]
    for token, number in tokens.items():
        rows = [one[EMBEDDINGS][where[token]] for one, where in zip(own, places, strict=True) if token in where]
        expected = (rows[0] + rows[-1]) / 2
        assert torch.allclose(found[EMBEDDINGS][number], expected, atol=1e-6), token
    layer = "model.layers.1.self_attn.q_proj.weight"
    assert torch.allclose(found[layer], own[0][layer] + 1 + (own[1][layer] - own[0][layer]) / 2, atol=1e-5)


def test_tied_heads_that_are_stored_too_are_compared_and_merged_once(tmp_path: Path) -> None:
    write_models(tmp_path, tie=True)
    for name in ("base", "a", "b"):
        file = tmp_path / name / "model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, "lm_head.weight": tensors[EMBEDDINGS].clone()}, file, metadata={"format": "pt"})
    names = [tmp_path / name for name in ("base", "a", "b")]
    out = merged(linear(*names, tokenizer_source="union", chat_template="mistral"), tmp_path / "run")
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    assert "The chat template is the built-in mistral." in (out / "README.md").read_text(encoding="utf-8")


def test_rows_without_a_token_are_left_out_and_tokens_without_a_row_are_no_tokens(models: Path, tmp_path: Path) -> None:
    words = bytes_tokenizer("low lower lowest new newer newest")
    write_model(tmp_path / "wide", 5, words, rows=len(words) + 9)
    write_model(
        tmp_path / "narrow", 6, bytes_tokenizer("low lower", ["<gone>"]), rows=len(bytes_tokenizer("low lower"))
    )
    out = merged(linear(tmp_path / "wide", tmp_path / "narrow", tokenizer_source="union"), tmp_path / "run")
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    assert load_file(out / "model.safetensors")[EMBEDDINGS].shape[0] == len(tokens)
    assert "<gone>" not in tokens
    assert words.get_vocab().items() <= tokens.items()


def test_the_tokenizer_of_a_base_model_that_has_none_needs_no_tokens(models: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_model(tmp_path / name, number, bytes_tokenizer("low lower"))
        for path in (tmp_path / name).glob("tokenizer*"):
            path.unlink()
    out = merged(linear(tmp_path / "one", tmp_path / "two", tokenizer_source="base"), tmp_path / "run")
    assert not list(out.glob("tokenizer*"))
    config = tmp_path / "one" / "config.json"
    for name in ("one", "two"):
        config = tmp_path / name / "config.json"
        keys = {**json.loads(config.read_text(encoding="utf-8")), "model_type": "own", "architectures": ["OwnModel"]}
        config.write_text(json.dumps(keys), encoding="utf-8")
        bytes_tokenizer("low lower").save_pretrained(tmp_path / name)
    out = merged(linear(tmp_path / "one", tmp_path / "two", tokenizer_source="base"), tmp_path / "other")
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "one" / "tokenizer.json").read_bytes()
    with pytest.raises(api.CheckpointError, match="the rows of its tokens are not known"):
        api.plan(written(tmp_path, linear(tmp_path / "one", tmp_path / "two", tokenizer_source="union")), progress=None)
