"""Licenses are read from cards as people write them, at the commits of the lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.errors import HubError
from hubmerge.hub import fetch
from hubmerge.localhub import LocalHub
from hubmerge.plan.licenses import plan_licenses
from hubmerge.report.licenses import License
from hubmerge.report.report import ModelReport, RunReport, StepReport
from hubmerge.stream.licenses import read_license, read_licenses, read_text
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.support.front_matter import MAX_CARD_BYTES
from merge_recipes import Lock, LockedModel, ModelReference, chain_digests, parse_recipe
from tests.localhub.planting import plant

Names = Callable[..., str]
Make = Callable[..., str]

MIT = b"---\nlicense: mit\n---\n"


@pytest.fixture
def make(local_hub: LocalHub, repo_name: Names) -> Make:
    """Create a repo with files; cards that the Hub would refuse too."""
    api = HfApi()

    def repo(files: dict[str, bytes]) -> str:
        name = api.create_repo(repo_name("licensed")).repo_id
        api.create_commit(name, [CommitOperationAdd("config.json", b"{}")], commit_message="x")
        for path, content in files.items():
            plant(local_hub, name, path, content)
        return name

    return repo


def commit_of(repo: str) -> str:
    return str(HfApi().model_info(repo).sha)


def license_of(reference: str) -> License:
    parsed = ModelReference.parse(reference)
    return read_license(Source(parsed, commit_of(parsed.path)))


CARDS: dict[str, tuple[bytes, License]] = {
    "one": (MIT, License(("mit",))),
    "several": (b"---\nlicense:\n- mit\n- apache-2.0\n- mit\n---\n", License(("mit", "apache-2.0"))),
    "capitals": (b"---\nlicense: ' MIT '\n---\n", License(("mit",))),
    "Windows": (b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n# A\r\n", License(("mit",))),
    "a name and a link": (
        b"---\nlicense: other\nlicense_name: mine\nlicense_link: https://example.org/l\n---\n",
        License(("other",), "mine", "https://example.org/l"),
    ),
    "a link that leads nowhere": (b"---\nlicense: mit\nlicense_link: ../../x\n---\n", License(("mit",))),
    "a link with a password": (b"---\nlicense: mit\nlicense_link: https://me:pw@a.b/c\n---\n", License(("mit",))),
    "a token as name": (
        b"---\nlicense: other\nlicense_name: hf_" + b"a" * 34 + b"\n---\n",
        License(("other",), "hf_***"),
    ),
    "control characters": (b'---\nlicense: "m\\u001b[31mit\\nx"\n---\n', License(("m\\x1b[31mit x",))),
    "no text": (b"---\nlicense: {a: 1}\nlicense_name: [1]\nlicense_link: 2\n---\n", License()),
    "a number": (b"---\nlicense: 2.0\n---\n", License()),
    "nothing": (b"---\nlicense:\n---\n", License()),
    "other metadata": (b"---\ntags: [a]\n---\n", License()),
    "no metadata": (b"# Title\n", License()),
    "no end": (b"---\nlicense: mit\n", License()),
    "no YAML": (b"---\nlicense: [mit\n---\n", License()),
    "an object of Python": (b"---\nlicense: !!python/name:os.system\n---\n", License()),
    "no UTF-8": (b"---\nlicense: mit\nx: \xff\n---\n", License(("mit",))),
    "nested too deep": (b"---\nlicense: " + b"[" * 5000 + b"\n---\n", License()),
    "too large": (b"---\nlicense: mit\nx: " + b"a" * MAX_CARD_BYTES + b"\n---\n", License()),
    "far too long": (b"---\nlicense: " + b"a" * 5000 + b"\n---\n", License(("a" * 60,))),
}


@pytest.mark.parametrize("name", CARDS)
def test_cards_as_people_write_them(make: Make, name: str) -> None:
    card, expected = CARDS[name]
    assert license_of(make({"README.md": card})) == expected


def test_a_repo_without_a_card(make: Make) -> None:
    assert license_of(make({"LICENSE": b"MIT\n", "NOTICE.txt": b"a"})) == License(files=("LICENSE", "NOTICE.txt"))


def test_the_card_of_the_subfolder_comes_first(make: Make) -> None:
    own = make({"README.md": MIT, "LICENSE": b"a", "a/config.json": b"{}", "a/README.md": b"---\nlicense: isc\n---\n"})
    assert license_of(f"{own}/a") == License(("isc",))
    top = make({"README.md": MIT, "LICENSE": b"a", "a/config.json": b"{}", "a/README.md": b"# No license\n"})
    assert license_of(f"{top}/a") == License(("mit",), files=("LICENSE",))


def test_the_locked_commit_decides(make: Make, local_hub: LocalHub) -> None:
    repo = make({"README.md": MIT})
    before = Source(ModelReference.parse(repo), commit_of(repo))
    plant(local_hub, repo, "README.md", b"---\nlicense: gpl-3.0\n---\n")
    assert read_license(before) == License(("mit",))
    assert license_of(repo) == License(("gpl-3.0",))


def stream_of(base: str, *entries: str) -> Stream:
    models = "".join(f"  - {{model: {entry}, name: n{number}}}\n" for number, entry in enumerate(entries, 1))
    return stream_from(f"merge_method: opcm\nbase_model: {base}\nmodels:\n{models}")


def stream_from(text: str) -> Stream:
    loaded = parse_recipe(text)

    def locked(reference: ModelReference, name: str) -> LockedModel:
        adapter = None if reference.adapter is None else commit_of(reference.adapter.path)
        return LockedModel(name=name, reference=reference, commit=commit_of(reference.path), adapter_commit=adapter)

    recipe = loaded.recipe
    models_locked = tuple(locked(entry.model, entry.name) for entry in recipe.entries)
    lock = Lock(recipe=f"sha256:{0:064}", base_model=locked(recipe.base_model, "base_model"), models=models_locked)
    return Stream(loaded, lock, chain_digests(recipe, lock), None)


def test_base_model_checkpoints_and_adapters_are_inputs(make: Make) -> None:
    base, tower = make({"README.md": MIT}), make({"README.md": b"---\nlicense: isc\n---\n"})
    adapter = make({"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    (first, second, *_) = read_licenses(stream_of(f"{tower}+{adapter}", base))
    assert [(one.name, one.step, one.license.text) for one in (first, second)] == [
        ("base model", 0, "isc"),
        ("adapter of base model", 0, "cc-by-nc-4.0"),
    ]
    found = read_licenses(stream_of(base, tower, f"{base}+{adapter}"))
    assert [(one.name, one.step, one.model, one.license.text) for one in found] == [
        ("base model", 0, base, "mit"),
        ("n1", 1, tower, "isc"),
        ("n2", 2, base, "mit"),
        ("adapter of n2", 2, adapter, "cc-by-nc-4.0"),
    ]


def test_a_model_that_only_lends_its_tokenizer_is_an_input(make: Make) -> None:
    base, tower = make({"README.md": MIT}), make({"README.md": MIT})
    lender = make({"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    stream = stream_of(base, tower)
    reference = ModelReference.parse(lender)
    tokenizer = LockedModel(name="lender", reference=reference, commit=commit_of(lender))
    stream = replace(stream, lock=stream.lock.model_copy(update={"tokenizer": tokenizer}))
    found = read_licenses(stream)
    assert (found[-1].name, found[-1].step, found[-1].license.text) == ("tokenizer of lender", -1, "cc-by-nc-4.0")
    assert [one.name for one in found[:-1]] == ["base model", "n1"]
    (note,) = plan_licenses(stream).notes
    assert "the licenses do not go together: cc-by-nc-4.0" in note
    HfApi().delete_repo(lender)
    fetch.list_files.cache_clear()
    with pytest.raises(HubError, match=lender):
        read_licenses(stream)
    step = StepReport(1, "n1", tower, stream.lock.models[0].commit, 1.0, 1.0, 1.0)
    finished = RunReport(ModelReport(base, "0" * 40), "opcm", "x", steps=(step,))
    assert read_licenses(stream, finished)[-1].license == License()


def test_revoked_entries_are_marked(make: Make) -> None:
    base, tower = make({"README.md": MIT}), make({"README.md": b"---\nlicense: cc-by-nc-4.0\n---\n"})
    text = f"{{model: {tower}, name: a}}", f"{{model: {base}@main, name: b}}", f"{{model: {tower}, revoke: a}}"
    recipe = f"merge_method: task_arithmetic\nbase_model: {base}\nmodels: [{', '.join(text)}]\n"
    stream = stream_from(recipe)
    assert [(one.name, one.revoked) for one in read_licenses(stream)] == [
        ("base model", False),
        ("a", True),
        ("b", False),
        (stream.entries[2].name, True),
    ]
    assert plan_licenses(stream).notes == ()


def test_finished_steps_keep_their_licenses_and_need_no_card(make: Make) -> None:
    base, gone, new = (make({"README.md": MIT}) for _ in range(3))
    stream = stream_of(base, gone, new)
    HfApi().delete_repo(gone)
    fetch.list_files.cache_clear()
    step = StepReport(1, "n1", gone, stream.lock.models[0].commit, 1.0, 1.0, 1.0, licenses=(License(("isc",)),))
    report = RunReport(ModelReport(base, "0" * 40, (License(("ncsa",)),)), "opcm", "x", steps=(step,))
    assert [one.license.text for one in read_licenses(stream, report)] == ["ncsa", "isc", "mit"]
    older = RunReport(
        ModelReport(base, "0" * 40),
        "opcm",
        "x",
        steps=(StepReport(1, "n1", gone, stream.lock.models[0].commit, 1, 1, 1),),
    )
    assert [one.license.text for one in read_licenses(stream, older)] == ["mit", "unknown", "mit"]
    with pytest.raises(HubError, match=gone):
        read_licenses(stream)


def test_texts_of_notices_are_bounded(make: Make, tmp_path: Path) -> None:
    repo = make({"NOTICE": b"a" * 100, "b/config.json": b"{}", "b/NOTICE": "ä".encode()})
    source = Source(ModelReference.parse(repo), commit_of(repo))
    assert read_text(source, "NOTICE", 100) == "a" * 100
    assert read_text(source, "NOTICE", 99) is None
    assert read_text(source, "NOTICE.md", 100) is None
    assert read_text(Source(ModelReference.parse(f"{repo}/b"), commit_of(repo)), "NOTICE", 100) == "ä"
    (tmp_path / "NOTICE").write_bytes(b"\xff")
    assert read_text(Source(ModelReference.parse(str(tmp_path)), "sha256:0"), "NOTICE", 100) == "\ufffd"
