"""Vocabularies: unions of tokenizers, rows of tokens, configs, chat templates, and the tensors that have the rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.vocabulary.comparison import differing_tokens, plain_vocabulary
from hubmerge.checkpoints.vocabulary.load import check_written, load_tokenizer
from hubmerge.checkpoints.vocabulary.row_plan import TokenRule, plan_rows, rule_texts
from hubmerge.checkpoints.vocabulary.settings import translation, with_numbers, with_vocabulary
from hubmerge.checkpoints.vocabulary.tokenizer import Tokenizer, is_tokenizer_file
from hubmerge.checkpoints.vocabulary.union import Part, union, with_tokens, without_unused
from hubmerge.checkpoints.vocabulary.written import tokenizer_files
from hubmerge.errors import CheckpointError
from tests.mergekit.vocabularies import bytes_tokenizer, unigram_tokenizer, words_tokenizer

KINDS = {"bytes": bytes_tokenizer, "unigram": unigram_tokenizer, "words": words_tokenizer}
OTHER_WORDS = "wide wider widest old older"


def saved(made: Any, folder: Path) -> dict[str, bytes]:
    made.save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if is_tokenizer_file(path.name)}


def read(made: Any, folder: Path) -> Tokenizer:
    found = load_tokenizer(saved(made, folder), {}, Origin(folder.name))
    assert found is not None
    return found


def part(tokenizer: Tokenizer, rows: int | None = None) -> Part:
    return Part(tokenizer, 1 + max(tokenizer.tokens.values()) if rows is None else rows)


def written(tokenizer: Tokenizer, folder: Path) -> Any:
    """Write a tokenizer and return what transformers reads."""
    folder.mkdir()
    files = tokenizer_files(tokenizer)
    check_written(files, {}, tokenizer)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_union_has_the_numbers_of_the_base_model_and_splits_texts_of_both(kind: str, tmp_path: Path) -> None:
    first, second = KINDS[kind]("low lower lowest", ["<one>"]), KINDS[kind](OTHER_WORDS, ["<one>", "<two>"])
    base, other = read(first, tmp_path / "base"), read(second, tmp_path / "other")
    joined = union(base, [part(other)])
    made = written(joined, tmp_path / "union")
    assert {token: joined.tokens[token] for token in base.tokens} == base.tokens
    assert joined.tokens.keys() == base.tokens.keys() | other.tokens.keys()
    assert sorted(joined.tokens.values()) == list(range(len(joined.tokens)))
    new = [token for token in other.tokens if token not in base.tokens]
    plain = [token for token in sorted(new, key=other.tokens.__getitem__) if token not in other.added]
    assert [joined.tokens[token] for token in plain] == list(range(len(base.tokens), len(base.tokens) + len(plain)))
    assert made.tokenize(OTHER_WORDS) == second.tokenize(OTHER_WORDS)
    assert made.tokenize("<one> <two>")[-1] == "<two>"
    assert made("low lower<one>").input_ids == first("low lower<one>").input_ids


def test_a_union_of_equal_tokenizers_is_the_first_one(tmp_path: Path) -> None:
    base = read(bytes_tokenizer("low lower", ["<x>"]), tmp_path / "base")
    assert union(base, [part(base)]) is base
    assert tokenizer_files(base) == base.files


def test_special_tokens_of_another_model_are_special_in_the_union(tmp_path: Path) -> None:
    other = bytes_tokenizer("low lower")
    other.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    base = read(bytes_tokenizer("low lower"), tmp_path / "base")
    joined = union(base, [part(read(other, tmp_path / "other"))])
    assert joined.added["<|im_end|>"] == {
        "id": len(base.tokens),
        "content": "<|im_end|>",
        **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        "special": True,
    }


@pytest.mark.parametrize(("first", "second"), [("bytes", "unigram"), ("unigram", "words"), ("words", "bytes")])
def test_tokenizers_of_different_kinds_have_no_union(first: str, second: str, tmp_path: Path) -> None:
    base, other = (read(KINDS[one]("low lower"), tmp_path / name) for one, name in ((first, "base"), (second, "other")))
    with pytest.raises(CheckpointError, match="tokenizers of different kinds have no union") as caught:
        union(base, [part(other)])
    assert f"other: its tokenizer is {other.kind}, expected {base.kind} as that of base" in caught.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_without_a_row_are_removed_with_their_merges(kind: str, tmp_path: Path) -> None:
    whole = read(KINDS[kind](f"low lower {OTHER_WORDS}", ["<one>"]), tmp_path / "whole")
    rows = len(whole.tokens) - 6
    cut = without_unused(part(whole, rows))
    made = written(cut, tmp_path / "cut")
    assert made.get_vocab() == cut.tokens == {token: one for token, one in whole.tokens.items() if one < rows}
    assert without_unused(part(cut, rows)) is cut


@pytest.mark.parametrize("kind", ["bert", "padded"])
def test_special_tokens_without_a_row_are_no_tokens_of_the_union(kind: str, tmp_path: Path) -> None:
    made = words_tokenizer("low lower") if kind == "bert" else bytes_tokenizer("low lower")
    rows = len(made)
    files = saved(made, tmp_path / "base")
    settings = json.loads(files["tokenizer_config.json"])
    settings |= {"tokenizer_class": "BertTokenizer"} if kind == "bert" else {"pad_token": "[PAD]"}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    base = load_tokenizer(files, {}, Origin("base"))
    assert base is not None
    assert len(base.tokens) > rows
    own = without_unused(Part(base, rows))
    assert (len(own.tokens), tokenizer_files(own)) == (rows, files)
    other = read(KINDS["words" if kind == "bert" else "bytes"](OTHER_WORDS), tmp_path / "other")
    joined = union(own, [part(other)])
    found = written(joined, tmp_path / "union")
    assert joined.tokens.items() <= found.get_vocab().items()
    assert json.loads(tokenizer_files(joined)["tokenizer_config.json"]).get("pad_token") is None


def test_single_tokens_are_added_with_the_settings_that_a_model_has_for_them(tmp_path: Path) -> None:
    base = read(bytes_tokenizer("low lower"), tmp_path / "base")
    other = read(bytes_tokenizer("low", specials=("<s>", "</s>", "<pad>")), tmp_path / "other")
    found = with_tokens(base, ["<pad>", "<s>", "lower!"], [part(base), part(other)])
    made = written(found, tmp_path / "made")
    assert len(made) == len(base.tokens) + 2
    assert (found.added["<pad>"]["special"], found.added["lower!"]["special"]) == (True, False)
    assert made.tokenize("<pad>lower!") == ["<pad>", "lower!"]


def test_a_tokenizer_without_a_tokenizer_json_is_read_through_transformers(tmp_path: Path) -> None:
    made = bytes_tokenizer("low lower lowest")
    made.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = "\n".join(" ".join(pair) for pair in content["merges"])
    files = {
        "vocab.json": json.dumps(content["vocab"]).encode(),
        "merges.txt": f"#version: 0.2\n{merges}\n".encode(),
        "tokenizer_config.json": b'{"tokenizer_class": "GPT2Tokenizer", "unk_token": "<s>", "bos_token": "<s>"}',
    }
    found = load_tokenizer(files, {"model_type": "gpt2"}, Origin("slow"))
    assert found is not None
    assert content["vocab"].items() <= found.tokens.items()
    assert found.kind == "BPE over bytes"


def test_a_tokenizer_that_needs_code_is_refused_or_read_from_its_tokenizer_json(tmp_path: Path) -> None:
    files = saved(bytes_tokenizer("low lower"), tmp_path / "own")
    settings = {**json.loads(files["tokenizer_config.json"]), "tokenizer_class": "OwnTokenizer"}
    settings["auto_map"] = {"AutoTokenizer": ["code.OwnTokenizer", None]}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    (tmp_path / "code.py").write_text("raise SystemExit", encoding="utf-8")
    found = load_tokenizer(files, {}, Origin("own"))
    assert found is not None
    assert found.content == json.loads(files["tokenizer.json"])
    del files["tokenizer.json"]
    with pytest.raises(CheckpointError, match="its tokenizer cannot be read"):
        load_tokenizer({**files, "own.model": b"\0"}, {}, Origin("own"))
    assert load_tokenizer({"tokenizer_config.json": b"{}"}, {}, Origin("none")) is None
    with pytest.raises(CheckpointError, match="expected a model with a vocabulary"):
        load_tokenizer({"tokenizer.json": b"[]"}, {}, Origin("own"))


def plain(tokens: Mapping[str, int]) -> Tokenizer:
    return Tokenizer("me/model", {"model": {"type": "BPE", "vocab": dict(tokens), "merges": []}}, {})


def test_rows_come_from_the_base_model_the_mean_or_a_named_row() -> None:
    parts = [
        Part(plain({"a": 0, "b": 1}), 3),
        Part(plain({"b": 0, "c": 1, "d": 2}), 3),
        Part(plain({"c": 4, "d": 1, "e": 5}), 5),
    ]
    tokens = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5}
    rules = {"d": TokenRule("row", 1, "b", force=True), "f": TokenRule("row", 0, 2)}
    plan = plan_rows(tokens, parts, rules, has_base=True, multiple=4)
    assert [list(places) for places in plan.places] == [
        [0, 1, -1, -1, -1, -1],
        [-1, 0, 1, 2, -1, -1],
        [-1, -1, 4, 1, -1, -1],
    ]
    assert plan.donors == {0: ((0, 0),), 1: ((0, 1),), 2: ((1, 1), (2, 4)), 3: ((1, 0),), 4: (), 5: ((0, 2),)}
    assert (plan.rows, plan.forced, plan.receives(0), plan.keeps(0)) == (8, frozenset({3}), True, False)
    assert dict(rule_texts(plan, ["me/base", "me/x", "me/y"], ["f"])) == {
        "f": "me/base, row 2",
        "c": "mean of me/x, me/y",
        "d": "me/x, row 0, for all models",
        "e": "zeros",
        "a": "me/base",
        "b": "me/base",
    }
    assert next(rule_texts(plan, ["me/base", "me/x", "me/y"], ["f"]))[0] == "f"
    without = plan_rows({"b": 0}, parts[:2], {}, has_base=False)
    assert (without.donors, without.receives(0), without.keeps(0)) == ({}, False, False)
    assert plan_rows({"a": 0, "b": 1, "c": 2}, parts[:1] * 2, {}, has_base=False).donors == {2: ()}


@pytest.mark.parametrize(
    ("token", "expected"), [("x", "'x' is not one of its tokens"), (7, "it has 2 rows, and no row 7")]
)
def test_a_row_that_a_model_lacks_is_an_error(token: str | int, expected: str) -> None:
    parts = [Part(plain({"a": 0, "b": 1}), 2)] * 2
    with pytest.raises(CheckpointError, match=expected):
        plan_rows({"a": 0, "n": 1}, parts, {"n": TokenRule("row", 1, token)}, has_base=True)


def test_numbers_of_special_tokens_follow_the_vocabulary() -> None:
    translate = translation({"<s>": 0, "</s>": 1, "<pad>": 2}, {"</s>": 0, "<pad>": 3, "<s>": 4}, 5)
    config = {
        "vocab_size": 3,
        "bos_token_id": 0,
        "eos_token_id": [1, 2],
        "pad_token_id": -1,
        "unk_token_id": None,
        "image_token_id": 70,
        "hidden_size": 1,
        "vision_config": {"pad_token_id": 2},
    }
    assert with_vocabulary(config, (), 5, translate) == {
        **config,
        "vocab_size": 5,
        "bos_token_id": 4,
        "eos_token_id": [0, 3],
        "image_token_id": None,
    }
    nested = {"text_config": {"vocab_size": 3, "eos_token_id": 1}, "vocab_size": 3, "pad_token_id": 2}
    assert with_vocabulary(nested, ("text_config",), 5, translate, {"text_config": {"eos_token_id": 9}}) == {
        "text_config": {"vocab_size": 5, "eos_token_id": 9},
        "vocab_size": 5,
        "pad_token_id": 3,
    }
    assert with_numbers({"suppress_tokens": [0, 60], "top_k": 1}, translate) == {"suppress_tokens": [4], "top_k": 1}


def test_rows_with_other_tokens_are_found_in_every_form_of_files() -> None:
    base = {"a": 0, "b": 1, "c": 2}
    forms = [
        {"tokenizer.json": json.dumps({"model": {"vocab": [["a", 0.0], ["b", 0.0]]}}).encode()},
        {"vocab.json": b'{"a": 0}', "added_tokens.json": b'{"b": 1}'},
        {"vocab.txt": b"a\nb\n"},
    ]
    settings = {"tokenizer_config.json": b'{"added_tokens_decoder": {"2": {"content": "x"}, "5": {"content": "y"}}}'}
    for files in forms:
        own = plain_vocabulary({**files, **settings})
        assert own == {"a": 0, "b": 1, "x": 2, "y": 5}
        assert differing_tokens(base, own, 3) == "1 row belongs to other tokens: row 2 is 'x' and 'c' in the base model"
        assert "2 rows belong to other tokens" in str(differing_tokens(base, own, 6))
        assert "row 5 is 'y' and no token in the base model" in str(differing_tokens(base, own, 6))
    assert differing_tokens(base, {"a": 0}, 3) is None
    assert plain_vocabulary({"tokenizer.json": b'{"model": 3}'}) is None
    assert plain_vocabulary({"tokenizer.model": b"\0"}) is None
