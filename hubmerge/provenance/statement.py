"""Provenance statement of a step: an in-toto Statement (v1) with a SLSA provenance (v1).

Its subjects are the files of the step. The recipe is its external parameters, the lock its resolved dependencies. It
has no time and no random number, so that everybody can write it again from recipe, lock and report.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from hubmerge.provenance.pinned_inputs import CACHED_INPUTS, PinnedInput, pinned_inputs
from hubmerge.report.report import RunReport
from hubmerge.support.names import CARD_FILE, STATEMENT_FILE
from merge_recipes import Lock
from merge_recipes.canonical import CanonicalText, canonical_json, canonical_json_with

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"

BUILD_TYPE = "urn:hubmerge:merge-step:v1"
"""The kind of build, which docs/security.md describes; a new form of the statement gets a new number."""

BUILDER = "urn:hubmerge:run"

WITHOUT = frozenset({CARD_FILE, STATEMENT_FILE})
"""Files of a step that are no subjects: people may write in the card, and a statement cannot have its own digest."""


def statement_text(report: RunReport, lock: Lock, recipe: Mapping[str, Any]) -> str:
    """Return the text of the statement about the last step of a report.

    Args:
        report: The report, with the list of the files of the step.
        lock: The lock of the stream.
        recipe: The keys and values of the recipe, as written.
    """
    return canonical_json_with(_document(report, lock, recipe)) + "\n"


def statement(report: RunReport, lock: Lock, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statement as plain JSON values; the arguments are those of `statement_text`."""
    values: dict[str, Any] = json.loads(statement_text(report, lock, recipe))
    return values


def _document(report: RunReport, lock: Lock, recipe: Mapping[str, Any]) -> dict[str, Any]:
    last = report.steps[-1]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": file.sha256}}
            for name, file in sorted(report.all_files.items())
            if name not in WITHOUT
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": _recipe(json.dumps(dict(recipe))), "step": last.step},
                "internalParameters": {"recipe": report.recipe_digest, "chain": last.chain_digest},
                "resolvedDependencies": [
                    *(_dependency(one) for one in pinned_inputs(lock, report)),
                    *_combined_parts(report),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": dict(report.versions)}},
        },
    }


def _combined_parts(report: RunReport) -> Iterator[dict[str, Any]]:
    """Yield the streams whose states were added, as resource descriptors of in-toto."""
    for step in report.steps:
        for part in step.combined:
            annotations = {"role": "state", "reference": part.place, "step": str(part.steps)}
            digest = {"sha256": part.state_digest.removeprefix("sha256:")}
            content: dict[str, Any] = {"name": part.place, "digest": digest, "annotations": annotations}
            yield content if part.commit is None else {**content, "uri": f"hf://{part.place}@{part.commit}"}


@lru_cache(1)
def _recipe(text: str) -> CanonicalText:
    """Return the canonical text of a recipe, which is equal at every step of a run."""
    return CanonicalText(canonical_json(json.loads(text)))


@lru_cache(CACHED_INPUTS)
def _dependency(one: PinnedInput) -> CanonicalText:
    """Return an input as the text of a resource descriptor of in-toto."""
    annotations = {"role": one.role, "reference": one.reference}
    content: dict[str, Any] = {"name": one.name, "digest": one.digest, "annotations": annotations}
    if one.step is not None:
        annotations["step" if one.stage is None else "model"] = str(one.step)
    if one.stage is not None:
        annotations["stage"] = one.stage
    if one.address is not None:
        content["uri"] = one.address
    return CanonicalText(canonical_json(content))
