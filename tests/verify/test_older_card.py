"""The card of version 0.1.0 is compared by its data: a changed value is found, another wording is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubmerge.cards import card_data, card_form, data_differences
from hubmerge.report.report import RunReport
from tests.older_stream import OlderHub, older_hub

REPO = "local/opcm-3"
COMMIT = "087c29c584704299a326ab3f88b076068ed5c3f5"
DATASET_COMMIT = "4f881b0a41476541c2bad664b771cf1d0777e606"

TAMPERED = {
    "a license": ("license: apache-2.0", "license: mit", "license in the metadata is 'mit', expected 'apache-2.0'"),
    "a score in the metadata": ("value: 0.125", "value: 0.925", "model-index in the metadata"),
    "a dataset in the metadata": ("- local/dots", "- local/dost", "datasets in the metadata"),
    "the commit of a dataset in the metadata": (f"revision: {DATASET_COMMIT}", f"revision: {'0' * 40}", "model-index"),
    "a base model": ("- local/tiny-clip_dots", "- local/other", "base_model in the metadata"),
    "the relation to the base model": ("base_model_relation: merge", "base_model_relation: finetune", "relation"),
    "a tag": ("- opcm", "- ties", "tags in the metadata"),
    "the metadata": ("license: apache-2.0", "license: [", "license in the metadata is missing"),
    "the title": ("# opcm-3", "# opcm-4", "the title is '# opcm-4'"),
    "the method": ("the method `opcm`", "the method `ties`", "'`opcm`' is missing"),
    "the paper of the method": ("arxiv.org/abs/2501.09522", "arxiv.org/abs/2501.09523", "'https://arxiv.org/abs/250"),
    "the repo that is loaded": (
        'CLIPModel.from_pretrained("local/opcm-3"',
        'CLIPModel.from_pretrained("a/b"',
        "code block 1",
    ),
    "the repo of a checkpoint": ("(/local/tiny-clip_dots/tree", "(/local/other/tree", "table 1"),
    "the linked commit of a checkpoint": (
        f"tiny-clip_shapes/tree/{COMMIT}",
        f"tiny-clip_shapes/tree/{'1' * 40}",
        "table 1",
    ),
    "the shown commit of a checkpoint": (f"`{COMMIT[:12]}`", f"`{'1' * 12}`", "table 1"),
    "the commit of the base model": ("`be8600b3df5b`", "`000000000000`", "table 1"),
    "a scale": ("| 1.387 |", "| 1.388 |", "table 2"),
    "a rank": ("10.0 (9–12)", "10.0 (9–13)", "table 2"),
    "the name of a step": ("| 2 | dots | 1.387", "| 2 | dost | 1.387", "table 2"),
    "a cosine": ("| 3 | clocks | -0.00 | -0.01 |", "| 3 | clocks | -0.00 | 0.01 |", "table 3"),
    "a score of the merged model": ("| 12.5 | 25.0 | 12.5 |", "| 12.5 | 25.0 | 92.5 |", "table 4"),
    "a score of a checkpoint": ("| 12.5 | 25.0 | 12.5 |", "| 12.5 | 52.0 | 12.5 |", "table 4"),
    "the number of examples": ("`4f881b0a4147` | 8 |", "`4f881b0a4147` | 8,000 |", "table 4"),
    "the metric": ("| 8 | accuracy |", "| 8 | precision |", "table 4"),
    "the split of a dataset": ("`test` at `4f881b0a4147`", "`train` at `4f881b0a4147`", "table 4"),
    "an average": ("**16.7**", "**61.7**", "table 4"),
    "a measure": ("| Share kept | 83.3 |", "| Share kept | 93.3 |", "table 5"),
    "a cell of the accuracy matrix": ("| 2 | 12.5 | 12.5 | - |", "| 2 | 12.5 | 12.5 | 99.9 |", "table 6"),
    "a row of the accuracy matrix": ("| 2 | 12.5 | 12.5 | - | 12.5 |\n", "", "table 6"),
    "the picture": (
        "(accuracy_matrix.png)",
        "(https://example.invalid/a.png)",
        "the link 'accuracy_matrix.png' is missing",
    ),
    "the recipe": ("max_examples: 8", "max_examples: 9", "code block 3"),
    "a version": ("safetensors 0.8.0", "safetensors 0.8.01", "'safetensors 0.8.0' is missing"),
    "a new link": (
        "In percent.",
        "In percent. [More](https://example.invalid)",
        "'https://example.invalid' does not belong",
    ),
    "a new address": (
        "In percent.",
        "In percent. https://example.invalid",
        "'https://example.invalid' does not belong",
    ),
    "a new tag of HTML": ("In percent.", "In percent. <img src=x>", "'<img src=x>' does not belong"),
    "a new table": ("## The recipe", "| accuracy |\n| 99.9 |\n\n## The recipe", "table 7"),
}
REWORDED = {
    "a heading": ("## What was merged", "## Merged checkpoints"),
    "a sentence": ("In this order, each at exactly this commit:", "The checkpoints in merge order:"),
    "the head of a table": ("| this model |", "| merged model |"),
    "the name of a measure": ("| Share kept |", "| Share of the own accuracy |"),
    "the definition of a measure": ("`share kept = mean over the tasks j of", "`share = mean over the tasks j of"),
    "a summary": ("folded into one model", "merged into one model"),
}  # fmt: skip


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OlderHub]:
    with older_hub(tmp_path_factory.mktemp("older")) as hub:
        yield hub


@pytest.fixture(scope="module")
def card(older: OlderHub) -> str:
    return older.read(REPO, "README.md")


@pytest.fixture(scope="module")
def report(older: OlderHub) -> RunReport:
    return RunReport.from_json(older.read(REPO, "hubmerge.json"))


def replaced(card: str, old: str, new: str) -> str:
    assert old in card
    return card.replace(old, new, 1)


def test_its_form_is_the_first(card: str) -> None:
    assert card_form(card) == 1


@pytest.mark.parametrize("name", TAMPERED)
def test_a_changed_value_is_found(card: str, report: RunReport, name: str) -> None:
    old, new, expected = TAMPERED[name]
    found = data_differences(card_data(card, report), card_data(replaced(card, old, new), report))
    assert expected in "; ".join(found)


@pytest.mark.parametrize("name", REWORDED)
def test_another_wording_is_no_difference(card: str, report: RunReport, name: str) -> None:
    assert data_differences(card_data(card, report), card_data(replaced(card, *REWORDED[name]), report)) == []


def test_every_number_of_its_tables_is_data(card: str, report: RunReport) -> None:
    """Whatever digit of a table is changed, the change is found."""
    data = card_data(card, report)
    start = card.index("## What was merged")
    lines = [*re.finditer(r"(?m)^\|.*$", card[start : card.index("## The recipe")])]
    assert sum(len(re.findall(r"\d", line[0])) for line in lines) > 100
    for line in lines:
        values = line[0].rpartition("`share kept")[0] or line[0]
        for digit in re.finditer(r"\d", re.sub(r"`[^`]* = .*", "", values)):
            place = start + line.start() + digit.start()
            changed = card[:place] + str((int(card[place]) + 1) % 10) + card[place + 1 :]
            assert data_differences(data, card_data(changed, report)), f"{line[0]}: digit {digit.start()}"


@pytest.mark.parametrize(
    "name", ["a license", "a score of the merged model", "the shown commit of a checkpoint", "the recipe"]
)
def test_verify_finds_a_changed_value(older: OlderHub, card: str, name: str, tmp_path: Path) -> None:
    old, new, expected = TAMPERED[name]
    changed = replaced(card, old, new).encode()
    older.api.upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=changed)
    output = older.hubmerge("verify", REPO, "--quick", "--work-dir", tmp_path, status=6)
    assert re.search(rf"differs +card: README.md: .*{re.escape(expected)}", output), output


def test_verify_finds_a_page_in_an_older_step(older: OlderHub, tmp_path: Path) -> None:
    """Version 0.1.0 wrote none."""
    older.api.upload_file(repo_id="local/ties-3", path_in_repo="report.html", path_or_fileobj=b"<html></html>")
    output = older.hubmerge("verify", "local/ties-3", "--quick", "--work-dir", tmp_path, status=6)
    assert "differs  files: report.html is not a file of this step" in output


def test_verify_does_not_compare_the_wording(older: OlderHub, card: str, tmp_path: Path) -> None:
    changed = replaced(card, *REWORDED["a sentence"]).encode()
    older.api.upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=changed)
    output = older.hubmerge("verify", REPO, "--quick", "--work-dir", tmp_path)
    assert "card: agrees with the report in all data; its wording is that of another version" in output
