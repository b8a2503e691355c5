"""The card is compared with a golden file.

After an intended change, write the file again and read the difference before you commit it:

    HUBMERGE_RENEW_GOLDEN=1 python -m pytest tests/cards
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from hubmerge.cards import CardDetails, card_text
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import ModelReport, RunReport, StepReport, TaskReport
from tests.cards.samples import KIND, RECIPE, sample_report

GOLDEN = Path(__file__).with_name("golden_card.md")
HOSTILE = (
    "<script>alert(1)</script>",
    "</details> | a | b |",
    "`x` ``y`` ```\n# heading\n---\nlicense: stolen\n---\n",
    "[text](javascript:alert(1)) ![](x)",
    "@somebody www.example.invalid https://example.invalid &lt; \x1b[31m \u202e",
    "%TAG ! *anchor &anchor {a: [b",
)


def sample_card(report: RunReport | None = None, **options: Any) -> str:
    values: dict[str, Any] = {
        "recipe_text": RECIPE,
        "repo": "me/clip-merged",
        "license": License(("mit",)),
        "tags": ("clip",),
        "page": "report.html",
        "model_class": "CLIPModel",
        "layout": "CLIPModel, named as in the base model's files (logit_scale, ...), float32",
    }
    return card_text(report or sample_report(), CardDetails(**(values | options)))


def metadata_of(text: str) -> Any:
    return ModelCard(text).data


def body_of(text: str) -> str:
    return ModelCard(text).text


def test_golden() -> None:
    text = sample_card()
    if os.environ.get("HUBMERGE_RENEW_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_metadata() -> None:
    data = metadata_of(sample_card())
    assert data.base_model == [
        "openai/clip-vit-base-patch32",
        "tanganke/clip-vit-base-patch32_sun397",
        "tanganke/clip-vit-base-patch32_mnist",
    ]
    assert data.base_model_relation == "merge"
    assert data.tags == ["merge", "hubmerge", "opcm", "clip"]
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "transformers", KIND)
    assert data.datasets is None
    found = {(r.dataset_type, r.metric_type): r for r in data.eval_results}
    assert set(found) == {("tanganke/sun397", "accuracy"), ("ylecun/mnist", "accuracy"), ("ylecun/mnist", "f1")}
    result = found["ylecun/mnist", "accuracy"]
    assert (result.metric_value, result.dataset_config, result.dataset_split) == (0.9456, "mnist", "test")
    assert result.dataset_revision == "b" * 40


@pytest.mark.usefixtures("local_hub")
def test_the_hub_accepts_it() -> None:
    ModelCard(sample_card()).validate()


@pytest.mark.usefixtures("local_hub")
def test_the_hub_accepts_hostile_names_too() -> None:
    for name in HOSTILE:
        ModelCard(hostile_card(name, stated=License(("mit",)))).validate()
        with pytest.raises(ValueError, match="must be one of"):
            ModelCard(hostile_card(name)).validate()


def test_numbers_of_the_score_table() -> None:
    body = body_of(sample_card())
    mean = 100 * (0.6853 + 0.9456 + 0.9912) / 3
    assert f"**{mean:.1f}**" in body
    transfer = 100 * ((0.6853 - 0.75) + (0.9456 - 0.9712)) / 2
    definition = "BWT = mean over the tasks j first seen at a step s < T of (R[T][j] - R[s][j])"
    assert f"| Backward transfer | {transfer:+.1f} | `{definition}` |" in body


def test_the_method_is_named_with_its_paper() -> None:
    body = body_of(sample_card(method_source="arXiv:2501.09522, Section 4 (projection)"))
    paper = "[arXiv 2501.09522](https://arxiv.org/abs/2501.09522), Section 4 (projection)"
    assert f"one after another by hubmerge with the method `opcm` ({paper})." in body


def test_the_card_of_a_folder_has_no_tag_and_no_repo() -> None:
    body = body_of(sample_card(repo=None))
    assert "The tag of this step" not in body
    assert "publish:" not in body.split("## Verify, extend, reproduce")[1].split("<code>hubmerge.yaml")[0]
    assert "hubmerge run hubmerge.yaml" in body


def test_the_card_of_an_earlier_step_has_its_checkpoints_only() -> None:
    text = sample_card(sample_report().until(1))
    assert "This model was made from 1 fine-tuned checkpoint of" in text
    assert 'revision="step-01"' in text
    assert "mnist" not in text.split("<code>hubmerge.yaml")[0]
    assert "| Backward transfer | - |" in text


def test_without_scores_there_is_no_score_section() -> None:
    report = sample_report()
    steps = tuple(dataclasses.replace(step, scores={}) for step in report.steps)
    text = sample_card(dataclasses.replace(report, steps=steps, tasks=(), base_scores={}, own_scores={}))
    assert "## Gains and losses" not in text
    assert "nobody has measured" in text
    assert "accuracy_matrix.png" not in text
    assert metadata_of(text).eval_results is None
    assert metadata_of(text).pipeline_tag is None


def test_local_folders_are_not_linked() -> None:
    text = sample_card(repo=None, license=NO_LICENSE)
    assert 'CLIPModel.from_pretrained("path/to/this/folder")' in text
    assert "hf download" not in text
    assert "| `step-01` |" in text
    assert metadata_of(text).license is None


def test_without_published_steps_only_the_last_one_has_a_tag() -> None:
    text = sample_card(every_step=False)
    assert "/me/clip-merged/tree/step-01" not in text
    assert 'revision="step-03"' in text


def test_plugins_are_named_with_their_version() -> None:
    report = dataclasses.replace(sample_report(), versions={"hubmerge": "0.1.0", "other-methods": "1.2"})
    text = sample_card(report, distributions={"opcm": "other-methods", KIND: "other-methods"})
    assert "the method `opcm` of `other-methods` 1.2." in text
    assert f"The task kind `{KIND}` is that of `other-methods` 1.2." in text
    assert "other-methods 1.2 from where its authors publish it" in text


def test_a_card_needs_a_step() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        sample_card(sample_report().until(0))


def test_the_recipe_is_unchanged_with_any_content() -> None:
    recipe = RECIPE + "# ```\n# </details>\n# ````yaml\n---\n"
    body = body_of(sample_card(recipe_text=recipe))
    assert f"`````yaml\n{recipe.rstrip()}\n`````" in body


def hostile_card(name: str, dataset: str = "me/things", stated: License | None = None) -> str:
    """Return a card in which every text of others is `name`, but for a stated license."""
    task = TaskReport(name, name, 1, dataset, name, name, name, (name,), 1, 1)
    step = StepReport(1, name, name, name, 1.0, 1.0, 1.0, scores={name: {name: 0.5, name + "2": 0.25}})
    report = RunReport(
        ModelReport(name, name), name, name, {name: name}, (task,), (step,), {name: {name: 0.5}},
        {name: {name: 0.5}}, {name: name},
    )  # fmt: skip
    return card_text(report, CardDetails(recipe_text=name, license=stated or License((name,)), tags=(name,)))


@pytest.mark.parametrize("dataset", ["me/things", None])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str, dataset: str | None) -> None:
    text = hostile_card(name, dataset or name)
    card = ModelCard(text)
    assert card.data.get("license") == " ".join("".join(c if c.isprintable() else " " for c in name).split())
    assert set(yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))) <= {
        "license", "library_name", "pipeline_tag", "base_model_relation", "base_model", "tags", "datasets", "metrics",
        "model-index",
    }  # fmt: skip
    headings = [line for line in outside_code(card.text) if line.startswith("#")]
    expected = [line for line in outside_code(body_of(sample_card())) if line.startswith("#")]
    assert headings[1:] == expected[1:]
    visible = "\n".join(outside_code(card.text))
    assert "<script" not in visible
    assert re.search(r"(?<!\\)\]\(javascript", visible) is None
    assert "@somebody" not in visible
    assert "https:" not in visible
    assert "www." not in visible
    assert "\x1b" not in visible
    assert "\u202e" not in visible
    assert visible.count("</details>") == visible.count("<details>")
    for line in outside_code(card.text):
        if line.startswith("|"):
            assert line.endswith("|")
    assert len(tables(card.text)) == len(tables(body_of(sample_card(sample_report().until(1))))) + 1


def outside_code(body: str) -> list[str]:
    """Return the lines outside of fenced blocks, without code spans."""
    lines, fence = [], ""
    for line in body.splitlines():
        opening = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif opening:
            fence = opening[0]
        else:
            lines.append(re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", line))
    assert not fence
    return lines


def tables(body: str) -> list[int]:
    """Return the number of columns of every table, and check that all rows of a table have as many."""
    found: list[int] = []
    inside = False
    for line in outside_code(body):
        if not line.startswith("|"):
            inside = False
            continue
        columns = len(re.findall(r"(?<!\\)\|", line)) - 1
        if inside:
            assert columns == found[-1], line
        else:
            found.append(columns)
        inside = True
    return found
