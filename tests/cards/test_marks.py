"""Cards in which people write, with the comments around the generated part quoted somewhere."""

from __future__ import annotations

from hubmerge.cards.merge_cards import BEGIN, END, has_marks, merged_card, own_part

GENERATED = f"---\nlicense: mit\n---\n\n# Title\n\n```yaml\n# {END}\nmerge_method: opcm\n```\n\nThe end.\n"


def test_a_quoted_comment_does_not_end_the_generated_part() -> None:
    first = merged_card(GENERATED, None)
    assert has_marks(first)
    existing = (
        first.replace("# Title", "# Old").replace(BEGIN, f"Ours.\n\n{BEGIN}") + f"\nBelow, with `{END}` quoted.\n"
    )
    again = merged_card(GENERATED, existing)
    assert again.count("The end.") == 1
    assert again.count("# Title") == 1
    assert "# Old" not in again
    assert again.endswith(f"Below, with `{END}` quoted.\n")
    assert merged_card(GENERATED, again) == again
    own, added = own_part(again)
    assert "The end." in own
    assert "Below" not in own
    assert added == ["text above the generated part", "text below the generated part"]
