"""Cards as HTML: the dialect, safe HTML, links and scores of the metadata."""

from __future__ import annotations

import pytest

from hubmerge.localhub.web.card_metadata import metadata_table, score_table
from hubmerge.localhub.web.cards import render_markdown
from tests.localhub.browsing import links


def test_safe_html_of_a_card_is_kept() -> None:
    folded = "<details>\n<summary><code>a.yaml</code>, as it was</summary>\n\n**x**\n\n</details>\n"
    assert folded.split("\n\n", 1)[0] in render_markdown(folded, "/files/")
    assert "<strong>x</strong>" in render_markdown(folded, "/files/")
    centered = render_markdown('<div align="center"><img src="a/b.png" width="90"></div>', "/files/")
    assert centered == '<div align="center"><img src="/files/a/b.png" width="90"></div>'


@pytest.mark.parametrize(
    ("hostile", "never"),
    [
        ('<details ontoggle="x">', "ontoggle"),
        ("<summary><b onclick=x>a</b></summary>", "onclick"),
        ("</details><script>x</script>", "<script"),
        ("<img src=x onerror=alert(1)>", "onerror"),
        ('<a href="javascript:x">y</a>', "javascript"),
        ('<a href="data:text/html,x">y</a>', "data:"),
        ('<img src="data:image/svg+xml;base64,AA">', "data:"),
        ('<div style="position:fixed">y</div>', "style"),
        ("<style>body{}</style>", "<style"),
        ("<iframe src=x></iframe>", "<iframe"),
        ("<form action=x><input type=text></form>", "<form"),
        ("<input type=text>", 'type="text"'),
        ("<math><style><img src=x onerror=1></style></math>", "onerror=1>"),
        ("$\\href{javascript:x}{y}$", 'href="javascript'),
        ("<svg onload=x></svg>", "<svg"),
        ("<!-- hidden -->", "hidden"),
        ("<!-- never closed", "never closed"),
    ],
)
def test_other_html_of_a_card_is_text_or_gone(hostile: str, never: str) -> None:
    assert never not in render_markdown(f"a\n\n{hostile}\n\nb {hostile}", "/files/")


def test_the_dialect_of_cards() -> None:
    text = render_markdown(
        "- [x] done\n\n> [!WARNING]\n> hot\n\n$a^2$\n\n$$\\frac{1}{2}$$\n\nnote[^1]\n\n[^1]: end\n", "/f/"
    )
    assert 'type="checkbox" aria-label="task"' in text
    assert "Warning" in text
    assert "<msup><mi>a</mi><mn>2</mn></msup>" in text
    assert "<mfrac>" in text
    assert 'href="#fn1"' in text
    assert "<code>" in render_markdown("$" + "x" * 2000 + "$", "/f/")  # a long formula stays as it is


def test_models_and_data_sets_of_a_card_are_links() -> None:
    table = metadata_table({"base_model": ["a/b", "../x"], "datasets": "c/d", "license": "mit", "other": {"x": 1}})
    assert set(links(table)) == {"/a/b", "/datasets/c/d"}
    assert "../x" in table
    assert "other" not in table


def test_scores_of_a_card_are_a_table() -> None:
    results = [{"task": {"type": "t"}, "dataset": {"name": "<d>"}, "metrics": [{"type": "accuracy", "value": 0.51239}]}]
    text = score_table({"model-index": [{"name": "m", "results": results}]})
    assert "&lt;d&gt;" in text
    assert "0.5124" in text
    for odd in (None, 3, [3], [{"results": 3}], [{"results": [{"metrics": [None]}]}], [{"results": [{"task": 1}]}]):
        assert score_table({"model-index": odd}) == ""
