"""References to models: parsing, printing and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_recipes import InvalidReferenceError, ModelReference

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("gpt2", ModelReference("gpt2")),
        ("openai/clip-vit-base-patch32", ModelReference("openai/clip-vit-base-patch32")),
        (f"a/b@{COMMIT}", ModelReference("a/b", COMMIT)),
        ("a/b@refs/pr/1", ModelReference("a/b", "refs/pr/1")),
        ("a/b@v1+c/d", ModelReference("a/b", "v1", ModelReference("c/d"))),
        ("a/b+c/d@v2", ModelReference("a/b", None, ModelReference("c/d", "v2"))),
        ("a/b+./lora", ModelReference("a/b", None, ModelReference("./lora"))),
        ("a/b/c", ModelReference("a/b", subfolder="c")),
        ("a/b/c d/e.f@v1", ModelReference("a/b", "v1", subfolder="c d/e.f")),
        ("a/b/c+d/e/f@v2", ModelReference("a/b", None, ModelReference("d/e", "v2", subfolder="f"), subfolder="c")),
        ("./x", ModelReference("./x")),
        ("../x/y z", ModelReference("../x/y z")),
        ("/x", ModelReference("/x")),
        ("~/x", ModelReference("~/x")),
        ("C:/x/y", ModelReference("C:/x/y")),
        ("d:\\x", ModelReference("d:\\x")),
        (r"\\server\share\x", ModelReference(r"\\server\share\x")),
        (r"a/b+C:/lo\+ra", ModelReference("a/b", None, ModelReference("C:/lo+ra"))),
        ("_a/b_", ModelReference("_a/b_")),
        (r"./a\+b\@3", ModelReference("./a+b@3")),
        (r"./a\+b+../c\@d", ModelReference("./a+b", None, ModelReference("../c@d"))),
        (r"a/b@v1+./c\+d", ModelReference("a/b", "v1", ModelReference("./c+d"))),
        (r"./a\b", ModelReference(r"./a\b")),
    ],
)
def test_parse_and_print(text: str, reference: ModelReference) -> None:
    assert ModelReference.parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "@main",
            "a/b@",
            "a/b@x y",
            "a/b+",
            "a/b+c/d+e/f",
            "a//b",
            "a/b/",
            "a/b//c",
            "/a\0",
            "a/b\n",
            " a/b",
            "a/b ",
        ),
        *(
            "a/-b",
            "a/b-",
            ".a/b",
            "a/b.git",
            "a/b--c",
            "a/b..c",
            "a/" + "b" * 96,
            "x" * 2000,
            "./a@main",
            "ä/b",
            "a b/c",
        ),
        *("a/b/..", "a/b/../c", "a/b/c/.", "a/b/c\\d", "a/b/ ", "a/b/c\n", "a/b/" + "c" * 2000, "datasets/a/b/"),
        *("https://huggingface.co/a/b", "hf://a/b", "file:./x", "a\\b", "a/b@" + "x" * 2000),
    ],
)
def test_invalid_references(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        ModelReference.parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("./a+b+c", r"write a '+' in the name of a local folder as \+"),
        ("./a@3", r"write ./a; write an '@' in the name of the folder as \@"),
    ],
)
def test_hints_for_plus_and_at(text: str, hint: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        ModelReference.parse(text)
    assert caught.value.problems[0].hint == hint


@pytest.mark.parametrize(("text", "hint"), [(r".\a\b", "./a/b"), (r"..\a", "../a")])
def test_backslashes_are_refused_with_the_path_to_write(text: str, hint: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        ModelReference.parse(text)
    assert caught.value.problems[0].hint == f"write folders with slashes: {hint}"


def test_plus_and_at_are_kept_in_absolute_paths() -> None:
    reference = ModelReference.parse(r"./a\+b\@3").within(Path("/f"))
    assert reference.path == "/f/a+b@3"
    assert str(reference) == r"./a\+b\@3"
    assert reference.short_name == "a+b@3"


@pytest.mark.parametrize(
    "address", ["https://huggingface.co/a/b", "https://huggingface.co/a/b/tree/main", "hf://models/a/b"]
)
def test_the_hint_for_a_web_address_names_the_repo(address: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        ModelReference.parse(address)
    assert caught.value.problems[0].hint == "write the repo only: a/b"


def test_the_hint_for_the_address_of_a_collection_names_its_slug() -> None:
    slug = f"me/clip-{'0' * 24}"
    with pytest.raises(InvalidReferenceError, match="is the web address of a collection") as caught:
        ModelReference.parse(f"https://huggingface.co/collections/{slug}?sort=new")
    assert f"write collection: {slug} (" in str(caught.value.problems[0].hint)


def test_local_paths_become_absolute_and_are_printed_as_written() -> None:
    home = str(Path("~").expanduser())
    for text, path in (("./x", "/f/x"), ("../x", "/x"), ("/y/../x", "/x"), ("~/x", f"{home}/x"), (".", "/f")):
        reference = ModelReference.parse(text).within(Path("/f"))
        assert reference.path == path
        assert str(reference) == text
        assert reference.is_local
        assert str(reference.within(Path("/other"))) == text
        assert reference.within(Path("/other")).path == path


def test_an_adapter_is_local_on_its_own() -> None:
    reference = ModelReference.parse("a/b@v1+./lora").within(Path("/f"))
    assert not reference.is_local
    assert reference.adapter is not None
    assert reference.adapter.path == "/f/lora"
    assert str(reference) == "a/b@v1+./lora"


@pytest.mark.parametrize(("text", "name"), [("a/b_c@v1", "b_c"), ("gpt2", "gpt2"), ("./x/y/", "y"), ("/", "/")])
def test_short_name(text: str, name: str) -> None:
    assert ModelReference.parse(text).short_name == name


@given(st.text(max_size=40))
def test_parsing_and_printing_are_inverse(text: str) -> None:
    try:
        reference = ModelReference.parse(text)
    except InvalidReferenceError:
        return
    assert str(reference) == text
    assert ModelReference.parse(str(reference)) == reference
