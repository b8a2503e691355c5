"""Rules of the Hub for the metadata of cards, with the sentences that the Hub writes.

The Hub refuses a commit whose card breaks a rule. The rules here are those that are known from its answers; the Hub
may have others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from merge_recipes.licenses import HUB_LICENSES, LICENSE_FILES, is_license_link

_ISO_639_1 = (
    "a[abefkmnrsvyz]|b[aeghimnors]|c[aehorsuvy]|d[aevz]|e[elnostu]|f[afijory]|g[adlnuv]|h[aeiortuyz]"
    "|i[adegikostu]|j[av]|k[agijklmnorsuvwy]|l[abginotuv]|m[ghiklnrsty]|n[abdeglnorvy]|o[cjmrs]|p[ailst]"
    "|q[u]|r[mnouw]|s[acdeghiklmnoqrstuvw]|t[aeghiklnorstwy]|u[gkrz]|v[eio]|w[ao]|x[h]|y[io]|z[ahu]"
)
_SPECIAL_LANGUAGES = frozenset({"code", "multilingual"})
_CODE = re.compile(rf"{_ISO_639_1}|[a-z]{{3}}")
"""A code of two letters that is assigned, or any three letters."""

_MODEL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?")


def metadata_errors(metadata: Mapping[str, Any], kind: str = "model") -> list[str]:
    """Return the errors for which the Hub refuses the metadata of a card.

    Args:
        metadata: the metadata, as plain JSON values.
        kind: the kind of repo: model, dataset or space.
    """
    if kind not in {"model", "dataset"}:
        return []
    errors = [*_license(metadata), *_languages(metadata), *_lists(metadata)]
    if kind == "model":
        errors += [*_base_models(metadata), *_texts(metadata), *_results(metadata.get("model-index"))]
    return errors


def _license(metadata: Mapping[str, Any]) -> Iterator[str]:
    stated = metadata.get("license")
    for place, one in _items("license", stated):
        if not isinstance(one, str) or one not in HUB_LICENSES:
            yield f'"{place}" must be one of [{", ".join(HUB_LICENSES)}{"" if isinstance(stated, list) else ", array"}]'
    name, link = metadata.get("license_name"), metadata.get("license_link")
    if name is not None and not isinstance(name, str):
        yield '"license_name" must be a string'
    if link is not None and not (isinstance(link, str) and is_license_link(link)):
        yield f'"license_link" must be one of [{", ".join(LICENSE_FILES)}] or a valid URL'


def _languages(metadata: Mapping[str, Any]) -> Iterator[str]:
    for place, one in _items("language", metadata.get("language")):
        if not isinstance(one, str):
            yield f'"{place}" must be a string'
        elif one != one.lower():
            yield f'"{place}" must only contain lowercase characters'
        elif one not in _SPECIAL_LANGUAGES and _CODE.fullmatch(one) is None:
            yield (
                f'"{place}" with value "{one}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code (two/three '
                'letters), or a special value like "code", "multilingual". If you want to use BCP-47 identifiers, you '
                "can specify them in language_bcp47."
            )


def _lists(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in ("tags", "datasets", "metrics", "widget"):
        value = metadata.get(key)
        if key in {"tags", "widget"} and value is not None and not isinstance(value, list):
            yield f'"{key}" must be an array'
        elif key != "widget":
            yield from (f'"{place}" must be a string' for place, one in _items(key, value) if not isinstance(one, str))


def _base_models(metadata: Mapping[str, Any]) -> Iterator[str]:
    for place, one in _items("base_model", metadata.get("base_model")):
        if not isinstance(one, str):
            yield f'"{place}" must be a string'
        elif _MODEL_ID.fullmatch(one) is None:
            yield f'"{place}" with value "{one}" is not valid. Use a model id from https://hf.co/models.'


def _texts(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in ("pipeline_tag", "library_name"):
        if metadata.get(key) is not None and not isinstance(metadata[key], str):
            yield f'"{key}" must be a string'


def _results(index: Any) -> Iterator[str]:
    """Yield the errors of the results of evaluations."""
    if index is None:
        return
    if not isinstance(index, list):
        yield '"model-index" must be an array'
        return
    for number, model in enumerate(index):
        place = f"model-index[{number}]"
        if not isinstance(model, dict):
            yield f'"{place}" must be of type object'
            continue
        if not isinstance(model.get("name"), str):
            yield f'"{place}.name" is required'
        results = model.get("results")
        if not isinstance(results, list):
            yield f'"{place}.results" is required'
            continue
        for position, result in enumerate(results):
            yield from _result(f"{place}.results[{position}]", result)


def _result(place: str, result: Any) -> Iterator[str]:
    if not isinstance(result, dict):
        yield f'"{place}" must be of type object'
        return
    for key, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
        part = result.get(key)
        if part is None and key == "dataset":
            continue
        for name in needed:
            if not isinstance(part, dict) or not isinstance(part.get(name), str):
                yield f'"{place}.{key}.{name}" is required'
    metrics = result.get("metrics")
    for position, metric in enumerate(metrics if isinstance(metrics, list) else ()):
        for name in ("type", "value"):
            if not isinstance(metric, dict) or metric.get(name) is None:
                yield f'"{place}.metrics[{position}].{name}" is required'


def _items(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield place and value of each item of a list, or of a single value; nothing for a key without a value."""
    if isinstance(value, list):
        yield from ((f"{key}[{number}]", one) for number, one in enumerate(value))
    elif value is not None:
        yield key, value
