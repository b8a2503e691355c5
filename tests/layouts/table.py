"""Tables of docs/layouts.md, made from the tests: formats, families, and kinds of public bug reports.

`python -m tests.layouts.table` writes them into the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.checkpoints.families import FAMILIES
from tests.layouts.families import MORE_FAMILIES
from tests.layouts.formats import FORMATS
from tests.layouts.parts import EQUAL_PARTS, FEWEST_PARTS
from tests.layouts.reports import REPORTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "layouts.md"
BEGIN = "<!-- written by `python -m tests.layouts.table`: begin -->"
END = "<!-- written by `python -m tests.layouts.table`: end -->"

FORMAT_TEST = "tests/layouts/test_library_files.py::test_files_keep_their_names_metadata_and_config"
ORACLE_TEST = "tests/checkpoints/matching/test_families.py::test_two_steps_agree_with_the_oracle"
PARTS_TEST = "tests/checkpoints/matching/test_every_part.py::test_every_model_inside_of_another_finds_its_place"
AVERAGE_TEST = "tests/layouts/test_more_families.py::test_an_average_agrees_with_torch_and_loads"


def generated() -> str:
    """Return the part of the page that is made from the tests."""
    return "\n\n".join([BEGIN, *_formats(), *_families(), *_parts(), *_reports(), END])


def held_by() -> set[str]:
    """Return the tests that hold the lines of the tables."""
    return {FORMAT_TEST, ORACLE_TEST, AVERAGE_TEST, PARTS_TEST, *(report.test for report in REPORTS)}


def _formats() -> Iterator[str]:
    yield "### Formats"
    yield f"Each format is saved, merged, written and, where its library is installed, loaded in `{FORMAT_TEST}`."
    rows = [[one.library, one.model, _files(one.read), _files(one.written)] for one in FORMATS]
    yield _table(["library", "model", "weight files read", "weight files written"], rows)


def _families() -> Iterator[str]:
    yield "### Classes of transformers"
    yield (
        "Tiny random models of these classes are merged from files to files and loaded again. They are merged by OPCM "
        f"and compared with a literal form in numpy (`{ORACLE_TEST}`), or averaged and compared with torch "
        f"(`{AVERAGE_TEST}`, in the slow tests for most of them)."
    )
    rows = [[f"`{name}`", "OPCM"] for name in FAMILIES] + [[f"`{name}`", "average"] for name in MORE_FAMILIES]
    yield _table(["class", "merged with"], sorted(rows))


def _parts() -> Iterator[str]:
    yield "### Models inside of others"
    yield (
        f"At least {FEWEST_PARTS} models inside of the classes of transformers, one class for each type of config, are "
        "found in their place when they are a checkpoint alone, with the names of their own class and with the prefix "
        f"`model.` (`{PARTS_TEST}`, a slow test). These are refused until a rule leaves out the other part, because "
        "another part has the same type, names and shapes:"
    )
    yield _table(["type of the base model", "part"], [[f"`{kind}`", f"`{path}.*`"] for kind, path in EQUAL_PARTS])


def _reports() -> Iterator[str]:
    yield "### Kinds of public bug reports"
    yield "These kinds of reports in public trackers were imitated with small models."
    rows = [[one.projects, one.kind, one.verdict, f"`{one.test.rpartition('::')[2]}`"] for one in REPORTS]
    yield _table(["projects", "kind", "verdict", "test"], rows)


def _files(names: Sequence[str]) -> str:
    shown = dict.fromkeys(re.sub(r"\d{5}-of-\d{5}", "*-of-*", name) for name in names)
    return ", ".join(f"`{name}`" for name in shown)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def page_with(text: str) -> str:
    """Return the page with the generated part replaced."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + text + after


if __name__ == "__main__":
    PAGE.write_text(page_with(generated()), encoding="utf-8")
