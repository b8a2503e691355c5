"""Languages of a merged model: those that the cards of its inputs name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download

from hubmerge.cards import merged_card
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from tests.cards.samples import sample_report
from tests.cards.test_card import metadata_of, sample_card
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("en", ("en",)),
        (["de", "en", "de"], ("de", "en")),
        (["zh-Hans", "pt-BR", "yue", "multilingual", "code"], ("zh-Hans", "pt-BR", "yue", "multilingual", "code")),
        (["<b>", "English", "e", 3, None, "en\nx"], ()),
        ({"en": 1}, ()),
        (None, ()),
    ],
)
def test_codes_of_a_card(stated: Any, expected: tuple[str, ...]) -> None:
    assert License.of({"license": "mit", "language": stated}).languages == expected


def with_languages(*languages: tuple[str, ...]) -> RunReport:
    """Return a report whose base model and steps have these languages."""
    report = sample_report()
    base = dataclasses.replace(report.base_model, licenses=(License(languages=languages[0]),))
    steps = [
        dataclasses.replace(step, licenses=(License(languages=codes),))
        for step, codes in zip(report.steps, languages[1:], strict=True)
    ]
    return dataclasses.replace(report, base_model=base, steps=tuple(steps))


def test_the_card_has_them_once() -> None:
    report = with_languages(("en",), ("de", "en"), (), ("fr",))
    assert metadata_of(sample_card(report)).language == ["en", "de", "fr"]
    read_back = RunReport.from_json(report.to_json())
    assert [step.licenses for step in read_back.steps] == [step.licenses for step in report.steps]
    last = dataclasses.replace(report.steps[2], revokes="sun397")
    revoked = dataclasses.replace(report, steps=(*report.steps[:2], last))
    assert "de" not in metadata_of(sample_card(revoked)).language
    assert metadata_of(sample_card()).language is None


def test_languages_that_people_add_stay() -> None:
    existing = merged_card(sample_card(with_languages(("en",), (), (), ())), None).replace("- en\n", "- en\n- it\n", 1)
    assert metadata_of(existing).language == ["en", "it"]
    merged = merged_card(sample_card(with_languages(("en",), ("de",), (), ())), existing)
    assert metadata_of(merged).language == ["en", "de", "it"]


def test_a_published_step_has_them_and_verifies(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    api, base, target = HfApi(), repo_name("base"), repo_name("merged")
    api.create_repo(base)
    api.upload_folder(repo_id=base, folder_path=snapshot_download(stage.base), ignore_patterns="README.md")
    card = b"---\nlicense: mit\nlanguage: [de, fr]\n---\n# Base\n"
    api.upload_file(repo_id=base, path_in_repo="README.md", path_or_fileobj=card)
    tower = next(iter(stage.towers.values()))
    recipe = {"merge_method": "ties", "base_model": base, "models": [tower], "publish": {"repo": target}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**recipe, "models": [{"model": tower}]}), encoding="utf-8")
    assert hubmerge("run", path)[0] == 0
    found = ModelCard(Path(hf_hub_download(target, "README.md")).read_text(encoding="utf-8"))
    assert found.data.to_dict()["language"] == ["de", "fr"]
    status, output, errors = hubmerge("verify", target, "--quick", "--work-dir", tmp_path / "verify")
    assert status == 0, output + errors
