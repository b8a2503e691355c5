"""Versions of the form of `hubmerge.json`, and the keys that each of them has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hubmerge.errors import HubmergeError
from hubmerge.support.names import REPORT_FILE

REPORT_VERSION = 3
"""Version of the form that is written.

Version 1, of hubmerge 0.1.0, has no list of all files and no seal. In versions 1 and 2 all steps are whole.
"""

STAGES_VERSION, READ_VERSION, TOKENIZER_VERSION, DATA_VERSION, SPLITS_VERSION = 4, 5, 6, 7, 8
"""Versions with stages before the merge, with a choice of the read-out, with a model that only lends its tokenizer,
with tasks that read several data repos, and with tasks that score several splits.

A version above `REPORT_VERSION` is written only for a report that has what it is for.
"""

READABLE_VERSIONS = (1, 2, 3, 4, 5, 6, 7, 8)
"""Versions of the form that can be read."""

SEALED_KEYS = frozenset({"all_files", "seal"})
"""Keys that version 1 does not have."""

NEW_KEYS = frozenset({"kept_files", "kept_metadata", "older_steps"})
"""Keys that versions 1 and 2 do not have."""


def needed_version(*, stages: bool, read: bool, tokenizer: bool, data: bool, splits: bool) -> int:
    """Return the version of the form of a report, by what it has.

    Args:
        stages: stages before the merge.
        read: a choice of the read-out.
        tokenizer: a model that only lends its tokenizer.
        data: tasks that read several data repos.
        splits: tasks that score several splits.
    """
    needed = {STAGES_VERSION: stages, READ_VERSION: read, TOKENIZER_VERSION: tokenizer, DATA_VERSION: data}
    needed[SPLITS_VERSION] = splits
    return max((version for version, used in needed.items() if used), default=REPORT_VERSION)


def check_form(values: Any) -> None:
    """Check the version of a plain report, and that it has no key of a later version.

    Raises:
        HubmergeError: the version is unknown, or a key is of a later version.
    """
    data = values if isinstance(values, Mapping) else {}
    version = data.get("version")
    if version not in READABLE_VERSIONS or isinstance(version, (bool, float)):
        expected = " or ".join(map(str, READABLE_VERSIONS))
        raise HubmergeError(
            f"{REPORT_FILE}: format version {version!r} is unknown, expected {expected}",
            hint="update hubmerge, or publish to a new repo",
            file=REPORT_FILE,
        )
    for first, key in _later_keys(data):
        if version < first:
            raise HubmergeError(f"{REPORT_FILE}: a report of version {version} has no {key}", file=REPORT_FILE)


def _later_keys(data: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the keys of a plain report that not all versions have, each with the first version that has it."""
    for first, keys in ((2, SEALED_KEYS), (3, NEW_KEYS)):
        yield from ((first, key) for key in sorted(data.keys() & keys))
    if "stages" in data:
        yield STAGES_VERSION, "stages"
    if any("read" in step for step in _records(data.get("steps"))):
        yield READ_VERSION, "choice `read`"
    if any("tokenizer" in one for one in (data, *_records(data.get("stages")))):
        yield TOKENIZER_VERSION, "tokenizer"
    reads = _records([step.get("read") for step in _records(data.get("steps"))])
    more = [one["more_data"] for one in (*_records(data.get("tasks")), *reads) if "more_data" in one]
    if more:
        yield DATA_VERSION, "more_data"
    if any("split" in one for items in more for one in _records(items)):
        yield SPLITS_VERSION, "split in more_data"


def _records(values: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in (values if isinstance(values, list) else ()) if isinstance(one, Mapping))
