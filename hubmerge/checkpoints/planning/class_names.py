"""Names and number of a model's classes, from the places where the libraries of models write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DEFAULT = re.compile(r"LABEL_\d+")
_NUMBERED = re.compile(r"(?:label|class|cls|category)?[ _-]?(\d+)", re.IGNORECASE)
_NAMES = ("label_names", "class_names", "labels", "classes")
"""Keys with a list of names, or with a mapping from numbers to names; timm writes `label_names`."""

_COUNTS = ("num_classes", "num_labels", "_num_labels")
_TIMM = "pretrained_cfg"


CLASS_KEYS = frozenset({"id2label", "label2id", "problem_type", *_NAMES, *_COUNTS})
"""Keys of a config that belong to the head of a model."""


def class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that a config names, in order; None if it names none.

    They are in `id2label` (transformers), in `label_names` or its `pretrained_cfg` (timm), or in a similar list.

    >>> class_names({"id2label": {"1": "dog", "0": "cat"}}), class_names({"label_names": ["cat", "dog"]})
    (('cat', 'dog'), ('cat', 'dog'))
    """
    names = next(_all_names(config), None)
    return None if names is None or all(_DEFAULT.fullmatch(name) for name in names) else names


def distinct_class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the classes that a config names, None also if the names only count: `0`, `1`, or `class_0`, `class_1`.

    Two models with ten numbered classes may be for digits and for animals. Names of another number of classes than the
    config gives are those of the model before it was fine-tuned.
    """
    names, count = class_names(config), _stated_count(config)
    if names is None or (len(names) > 1 and len(set(names)) == 1) or count not in {None, len(names)}:
        return None
    numbers = [_NUMBERED.fullmatch(name) for name in names]
    counting = all(found and int(found[1]) in {index, index + 1} for index, found in enumerate(numbers))
    return None if counting else names


def class_count(config: Mapping[str, Any]) -> int | None:
    """Return the number of classes of a model's head, None if its config does not have it.

    Two classes with default names do not count: older configs of transformers have them for models without a head.
    """
    names, count = next(_all_names(config), None), _stated_count(config)
    if count is not None or names is None or names == ("LABEL_0", "LABEL_1"):
        return count
    return len(names)


def _stated_count(config: Mapping[str, Any]) -> int | None:
    counts = (source.get(key) for source in _sources(config) for key in _COUNTS)
    return next((count for count in counts if type(count) is int and count > 0), None)


def head_modules(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules of a timm model that have a row for each class; none if its config does not name them."""
    found = [source.get("classifier") for source in _sources(config)]
    modules = (one for value in found for one in (value if isinstance(value, (list, tuple)) else [value]))
    return tuple(one for one in modules if isinstance(one, str) and one)


def _sources(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield config
    nested = config.get(_TIMM)
    if isinstance(nested, Mapping):
        yield nested


def _all_names(config: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the names that each place of a config gives, the most usual place first."""
    places = [config.get("id2label"), *(source.get(key) for source in _sources(config) for key in _NAMES)]
    for place in places:
        if isinstance(place, Mapping):
            place = _in_order(place)
        if isinstance(place, Sequence) and not isinstance(place, str) and place and not _has_containers(place):
            yield tuple(map(str, place))
    numbers = config.get("label2id")
    if isinstance(numbers, Mapping) and numbers and all(type(number) is int for number in numbers.values()):
        yield tuple(sorted(map(str, numbers), key=lambda name: numbers[name]))
    for source in _sources(config):
        described = source.get("label_descriptions")
        if isinstance(described, Mapping) and described:
            yield tuple(map(str, described))


def _in_order(labels: Mapping[Any, Any]) -> list[Any] | None:
    """Return the values of a mapping from numbers, in the order of the numbers; None for other keys."""
    if not all(str(key).isdecimal() for key in labels):
        return None
    return [labels[key] for key in sorted(labels, key=int)]


def _has_containers(names: Sequence[Any]) -> bool:
    return any(isinstance(name, (list, tuple, Mapping)) for name in names)
