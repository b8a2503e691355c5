"""Chat templates: the built-in ones, where they are written, and which most models have."""

from __future__ import annotations

import json

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from hubmerge.checkpoints.vocabulary.templates import BUILT_IN, most_common
from hubmerge.checkpoints.vocabulary.tokenizer import Tokenizer
from hubmerge.checkpoints.vocabulary.written import with_template
from merge_recipes.tokenizer_keys import BUILT_IN_TEMPLATES

CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
RENDERED = {
    "alpaca": "S\n\n### Instruction:\nU\n\n### Response:\nA\n\n### Instruction:\nV\n\n### Response:\n",
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]",
    "llama3": "".join(
        f"{'<s>' if role == 'system' else ''}<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"
        for role, text in (("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))
    )
    + "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] S\n\nU [/INST] A</s> [INST] V [/INST]",
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_built_in_chat_template_gives_the_format_of_its_models(name: str) -> None:
    chat = [*CHAT, {"role": "user", "content": "V"}]
    found, _ = render_jinja_template(
        conversations=[chat],
        chat_template=BUILT_IN[name],
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert found == [RENDERED[name]]


def test_a_chat_template_is_written_into_every_file_that_has_one() -> None:
    assert tuple(BUILT_IN) == BUILT_IN_TEMPLATES
    named = [{"name": "default", "template": "old"}, {"name": "tools", "template": "tools"}]
    files = {
        "tokenizer_config.json": json.dumps({"chat_template": named}).encode(),
        "chat_template.json": b'{"chat_template": "old"}',
        "tokenizer.json": b"{}",
    }
    assert Tokenizer("", {}, files).template == "old"
    found = with_template(files, "new")
    assert Tokenizer("", {}, found).template == "new"
    assert json.loads(found["chat_template.json"]) == {"chat_template": "new"}
    settings = json.loads(found["tokenizer_config.json"])["chat_template"]
    assert [one["template"] for one in settings] == ["new", "tools"]
    assert (found["chat_template.jinja"], found["tokenizer.json"]) == (b"new", b"{}")


def test_the_chat_template_of_most_models_is_found() -> None:
    assert most_common(["a", " b\n", None, "b", "c"]) == "b"
    assert most_common(["c", "a", "b"]) == "c"
    assert most_common([None, "  "]) is None
