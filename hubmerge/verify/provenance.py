"""Check of the provenance statement and the bill of materials of a published step: both are written again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hubmerge.cards import license_of
from hubmerge.errors import HubmergeError
from hubmerge.hub.published import read_small_file
from hubmerge.provenance.bom import BomDetails, bom
from hubmerge.provenance.bundle import MAX_BYTES
from hubmerge.provenance.statement import BUILD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, statement
from hubmerge.run.metadata_files import architecture_of
from hubmerge.support.names import BOM_FILE, CARD_FILE, LOCK_FILE, RECIPE_FILE, REPORT_FILE, STATEMENT_FILE
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from merge_recipes import RecipeError
from merge_recipes.canonical import canonical_json

_CONFIG_FILE = "config.json"


def check_provenance(published: Published) -> Iterator[Finding]:
    """Compare the statement with recipe, lock and report. Steps of version 0.1.0 have none."""
    content = _read(published, STATEMENT_FILE)
    if isinstance(content, Finding):
        yield content
    if not isinstance(content, Mapping):
        return
    try:
        recipe, lock = published.recipe(), published.lock()
    except RecipeError:
        yield Finding("provenance", "unknown", f"{STATEMENT_FILE} cannot be checked: recipe or lock cannot be read")
        return
    expected = statement(published.report, lock, recipe.values)
    different = False
    for cause in statement_differences(content, expected):
        different = True
        yield Finding("provenance", "differs", f"{STATEMENT_FILE}: {cause}")
    if not different:
        number = counted(
            len(expected["predicate"]["buildDefinition"]["resolvedDependencies"]), "dependency", "dependencies"
        )
        yield Finding("provenance", "same", f"the statement has the recipe, the lock ({number}) and the files")


def check_bom(published: Published) -> Iterator[Finding]:
    """Compare the bill of materials with report, lock and card. Steps of version 0.1.0 have none."""
    content = _read(published, BOM_FILE)
    if isinstance(content, Finding):
        yield content
    if not isinstance(content, Mapping) or published.stream is None:
        return
    publish = published.stream.recipe.publish
    details = BomDetails(
        publish.repo if publish is not None else None,
        license_of(published.files.metadata_files[CARD_FILE]),
        _model_class(published),
    )
    path = _first_difference(content, bom(published.report, published.lock(), details), "")
    if path is None:
        yield Finding("provenance", "same", f"{BOM_FILE} agrees with report and lock")
    else:
        yield Finding("provenance", "differs", f"{BOM_FILE} does not agree with report and lock: {path} differs")


def _read(published: Published, name: str) -> Mapping[str, Any] | Finding | None:
    """Return the content of a file, a finding if it is missing or no JSON object, None if the step needs none."""
    if name not in published.files.files:
        older = published.report.version == 1
        return None if older else Finding("provenance", "differs", f"{name} is missing")
    if published.files.sizes[name] > MAX_BYTES:
        return Finding("provenance", "differs", f"{name} is larger than {MAX_BYTES} bytes")
    try:
        content = read_strict_json(read_small_file(published.files, name))
    except StrictJSONError as error:
        return Finding("provenance", "differs", f"{name}: {error}")
    return content if isinstance(content, Mapping) else Finding("provenance", "differs", f"{name}: not an object")


def statement_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each part in which a statement differs from the expected one."""
    if (found.get("_type"), found.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        yield f"expected {STATEMENT_TYPE} with {PREDICATE_TYPE}"
        return
    if not _equal(found.get("subject"), expected["subject"]):
        yield f"its subjects are not the files of this step{_named(found.get('subject'), expected['subject'])}"
    build, expected_build = (_build(one) for one in (found, expected))
    if build.get("buildType") != BUILD_TYPE:
        yield f"its build type is not {BUILD_TYPE}"
    parameters, expected_parameters = build.get("externalParameters"), expected_build["externalParameters"]
    if isinstance(parameters, Mapping) and not _equal(parameters.get("step"), expected_parameters["step"]):
        yield f"it is the statement of step {parameters.get('step')!r:.20}"
    elif not _equal(parameters, expected_parameters):
        yield f"its external parameters are not those of {RECIPE_FILE}"
    key = "resolvedDependencies"
    if not _equal(build.get(key), expected_build[key]):
        yield f"its dependencies are not those of {LOCK_FILE}{_named(build.get(key), expected_build[key])}"
    path = _first_difference(_without_compared(found), _without_compared(expected), "")
    if path is not None:
        yield f"it does not agree with {REPORT_FILE}: {path} differs"


def _build(content: Mapping[str, Any]) -> Mapping[str, Any]:
    predicate = content.get("predicate")
    build = predicate.get("buildDefinition") if isinstance(predicate, Mapping) else None
    return build if isinstance(build, Mapping) else {}


def _without_compared(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a statement without the parts that are compared one by one."""
    whole: dict[str, Any] = json.loads(json.dumps(content))
    whole.pop("subject", None)
    build = _build(whole)
    if isinstance(build, dict):
        for key in ("buildType", "externalParameters", "resolvedDependencies"):
            build.pop(key, None)
    return whole


def _named(found: Any, expected: list[dict[str, Any]]) -> str:
    """Return the name of the first entry of a list that is missing, changed or added."""
    entries = found if isinstance(found, list) else []
    known, seen = {canonical_json(one) for one in expected}, {canonical_json(one) for one in entries}
    odd = [one for one in [*entries, *expected] if canonical_json(one) not in known & seen]
    name = odd[0].get("name") if odd and isinstance(odd[0], Mapping) else None
    return f": {name[:80]}" if isinstance(name, str) else ""


def _first_difference(one: Any, other: Any, path: str) -> str | None:
    """Return the key path of the first difference between two JSON values, None if they are equal."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted({*one, *other})
        pairs = [(f"{path}.{key}" if path else key, one.get(key), other.get(key)) for key in keys]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{path}[{index}]", *values) for index, values in enumerate(zip(one, other, strict=True))]
    else:
        return None if _equal(one, other) else path or "the whole document"
    found = (_first_difference(ours, theirs, place) for place, ours, theirs in pairs)
    return next((place for place in found if place is not None), None)


def _equal(one: Any, other: Any) -> bool:
    return canonical_json(one) == canonical_json(other)


def _model_class(published: Published) -> str | None:
    """Return the transformers class in the published config."""
    if _CONFIG_FILE not in published.files.files:
        return None
    try:
        config = read_strict_json(read_small_file(published.files, _CONFIG_FILE))
    except (StrictJSONError, HubmergeError):
        return None
    return architecture_of(config) if isinstance(config, Mapping) else None
