"""Bill of materials of a step in the format of CycloneDX 1.6: the merged model, its inputs and their licenses.

It has no time and no random number, so that everybody can write it again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any
from urllib.parse import quote

from hubmerge.provenance.pinned_inputs import CACHED_INPUTS, PinnedInput, pinned_inputs
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport, StageReport
from hubmerge.support.names import step_tag
from merge_recipes import Lock
from merge_recipes.canonical import CanonicalText, canonical_json, canonical_json_with
from merge_recipes.licenses import OTHER

MERGED = "merged-model"
"""Name of the merged model within the document."""

_SPDX = {
    name.lower(): name
    for name in (
        *("AFL-3.0", "AGPL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear"),
        *("BSL-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0"),
        *("CC-BY-NC-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0"),
        *("CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0"),
        *("CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2"),
        *("GFDL-1.3", "GPL-2.0", "GPL-3.0", "ISC", "LGPL-2.1", "LGPL-3.0", "LPPL-1.3c", "MIT", "MPL-2.0", "MS-PL"),
        *("NCSA", "ODbL-1.0", "OFL-1.1", "OSL-3.0", "PDDL-1.0", "PostgreSQL", "Unlicense", "WTFPL", "Zlib"),
    )
}
"""Identifiers of SPDX by their names on the Hub. All other licenses are written by name."""


@dataclass(frozen=True)
class BomDetails:
    """Facts for the bill of materials that are not in the report.

    Attributes:
        repo: Target repo, None if nothing is published.
        merged: License of the merged model, as its card states it.
        model_class: transformers class of the model, None if the config names none.
    """

    repo: str | None = None
    merged: License = NO_LICENSE
    model_class: str | None = None


def bom_text(report: RunReport, lock: Lock, details: BomDetails) -> str:
    """Return the text of the bill of materials of the last step of a report."""
    parts = _document(report, lock, details)
    content = {key: CanonicalText(canonical_json_with(part)) for key, part in parts.items()}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, canonical_json_with(content))
    return canonical_json_with({**content, "serialNumber": f"urn:uuid:{serial}"}) + "\n"


def bom(report: RunReport, lock: Lock, details: BomDetails) -> dict[str, Any]:
    """Return the bill of materials as plain JSON values."""
    values: dict[str, Any] = json.loads(bom_text(report, lock, details))
    return values


def _document(report: RunReport, lock: Lock, details: BomDetails) -> dict[str, Any]:
    """Return the bill of materials without its serial number, which is made from it."""
    inputs = pinned_inputs(lock, report)
    names = [*_names(inputs)]
    stated = _licenses_of_inputs(inputs, report)
    parts = [_component(*one) for one in zip(inputs, names, stated, strict=True)]
    data = [name for one, name in zip(inputs, names, strict=True) if one.role == "data set"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [*_tools(report)]},
            "component": _merged(report, details, data),
        },
        "components": parts,
        "dependencies": CanonicalText(
            json.dumps([{"dependsOn": names, "ref": MERGED}, *({"ref": name} for name in names)], separators=(",", ":"))
        ),
    }


def _tools(report: RunReport) -> Iterator[dict[str, Any]]:
    for name, version in sorted(report.versions.items()):
        yield {"type": "application" if name == "hubmerge" else "library", "name": name, "version": version}


def _merged(report: RunReport, details: BomDetails, datasets: list[str]) -> dict[str, Any]:
    """Return the merged model with its weight files, its model card and its license."""
    last = report.steps[-1]
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
        for name, digest in sorted(last.files.items())
    ]
    card: dict[str, Any] = {"modelParameters": _parameters(report, details, datasets)}
    metrics = [*_metrics(report)]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    content: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": MERGED,
        "name": details.repo or "merged model",
        "version": step_tag(last.step),
        "modelCard": card,
        "properties": [{"name": "hubmerge:merge_method", "value": report.merge_method}],
        "components": files,
    }
    return content | _licenses(details.merged)


def _parameters(report: RunReport, details: BomDetails, datasets: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    kinds = sorted({task.kind for task in report.tasks})
    if kinds:
        content["task"] = ", ".join(kinds)
    if details.model_class is not None:
        content["modelArchitecture"] = details.model_class
    if datasets:
        content["datasets"] = [{"ref": name} for name in datasets]
    return content


def _metrics(report: RunReport) -> Iterator[dict[str, str]]:
    for task, scores in sorted(report.steps[-1].scores.items()):
        for metric, value in sorted(scores.items()):
            if isinstance(value, (int, float)):
                yield {"type": metric, "value": repr(value), "slice": task}


@lru_cache(CACHED_INPUTS)
def _component(one: PinnedInput, name: str, stated: License) -> CanonicalText:
    """Return the text of the component of an input."""
    data = one.role == "data set"
    content: dict[str, Any] = {
        "type": "data" if data else "machine-learning-model",
        "bom-ref": name,
        "name": one.repo or one.reference,
        "version": one.commit,
    }
    if data:
        content["data"] = [{"type": "dataset", "name": one.reference}]
    elif one.repo is not None:
        content["purl"] = f"pkg:huggingface/{one.repo}@{one.commit}" + (f"#{quote(one.folder)}" if one.folder else "")
    return CanonicalText(canonical_json(content | _licenses(stated)))


def _names(inputs: Iterable[PinnedInput]) -> Iterator[str]:
    """Yield the name of each input within the document: base-model, checkpoint-2, data-set-1, stage-x-checkpoint-2."""
    datasets = count(1)
    for one in inputs:
        number = next(datasets) if one.role == "data set" else one.step
        stage = "" if one.stage is None else f"stage-{one.stage}-"
        yield stage + one.role.replace(" ", "-") + ("" if number is None else f"-{number}")


def _licenses_of_inputs(inputs: Iterable[PinnedInput], report: RunReport) -> Iterator[License]:
    """Yield the license of each input in the report."""
    read = [one for task in reversed(report.tasks) for one in task.data]
    datasets = {(one.path, one.commit): one.licenses for one in read if one.licenses}
    merges: dict[str | None, RunReport | StageReport] = {None: report, **{one.name: one for one in report.stages}}
    for one in inputs:
        if one.role == "data set":
            found = datasets.get((one.name, one.commit), ())
        else:
            merge = merges.get(one.stage)
            found = () if merge is None else _licenses_of_model(one, merge)
        place = 1 if one.role == "adapter" else 0
        yield found[place] if place < len(found) else NO_LICENSE


def _licenses_of_model(one: PinnedInput, merge: RunReport | StageReport) -> tuple[License, ...]:
    """Return the licenses of a model of a merge, then of its adapter, as its report has them."""
    if one.role == "tokenizer":
        return () if merge.tokenizer is None else merge.tokenizer.licenses
    return merge.base_model.licenses if one.step is None else merge.models[one.step - 1].licenses


def _licenses(stated: License) -> dict[str, Any]:
    """Return the licenses of a component, nothing if none is stated."""
    choices: list[dict[str, Any]] = []
    for identifier in stated.identifiers:
        known = _SPDX.get(identifier)
        own_name = stated.name if identifier == OTHER else None
        choice = {"name": own_name or identifier} if known is None else {"id": known}
        if stated.link is not None and stated.link.startswith("https://"):
            choice["url"] = stated.link
        choices.append({"license": choice})
    return {"licenses": choices} if choices else {}
