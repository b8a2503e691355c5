"""Check that transformers will load a model's files, from config and names, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from hubmerge.checkpoints.matching.names import Shapes
from hubmerge.checkpoints.matching.spare import is_for_prediction, prediction_layers
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.planning.trial_load import LoadResult, Mismatch, load_without_values
from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed

_RESTORE = "restore the config.json that was saved with the weights"
_MOST_NAMES = 3


def check_loads(config: Mapping[str, Any], written: Shapes, original: Shapes, place: Origin | str) -> tuple[str, ...]:
    """Check that transformers finds in a model to be written all that it finds in the original.

    Missing or unused weights that the original has too are notes, not errors. So is a class that transformers does not
    know, because nothing can be checked then.

    Args:
        config: the content of config.json.
        written: names and shapes of the tensors to be written.
        original: names and shapes in the files of the model that `config` belongs to.
        place: the place of that model, or its name in messages.

    Returns:
        Notes on loading for the user, one sentence each.

    Raises:
        CheckpointError: weights or layers would be missing, have another shape, or none is found at all.
    """
    origin = Origin.of(place)
    result = load_without_values(config, written, origin)
    if not isinstance(result, LoadResult):
        return (f"loading of the merged model is not checked: {result.reason}",)
    _check_match(result, config, written, origin)
    if result.missing and set(written) != set(original):
        in_original = load_without_values(config, original, origin)
        _check_missing(result, in_original.missing if isinstance(in_original, LoadResult) else (), origin)
    return tuple(_notes(result, origin))


def _notes(result: LoadResult, origin: Origin) -> Iterator[str]:
    if result.missing:
        yield f"{origin} lacks {_some(result.missing)}, which {result.class_name} initializes randomly on load"
    unused_names = (*result.unexpected_layers, *result.unexpected)
    if unused_names:
        unused = _some(unused_names)
        yield f"{result.class_name} does not use {unused} of {origin}; they are written like all others"


def _check_missing(result: LoadResult, missing_in_original: Collection[str], origin: Origin) -> None:
    """Refuse weights that the original has, and the model to be written lacks."""
    missing = sorted(set(result.missing) - set(missing_in_original))
    if missing:
        raise origin.error(
            f"the merged model would lack {_some(missing)}: tied copies are not written, and {result.class_name} of "
            "transformers does not tie them with this config.json",
            hint="set `tie_word_embeddings` to false in the base model's config.json",
            tensor=missing[0],
        )


def _check_match(result: LoadResult, config: Mapping[str, Any], shapes: Shapes, origin: Origin) -> None:
    """Refuse weights that the class does not find, or that have other shapes or layers than config.json gives."""
    spare = prediction_layers(config)
    if not result.finds_any:
        raise _nothing_found(result, config, shapes, origin)
    if result.mismatched:
        problem = f"does not match the weights: {_some([_described(one) for one in result.mismatched])}"
    elif result.missing_layers:
        problem = f"describes layers that the weights do not have: {_some(result.missing_layers)}"
    elif further := [layer for layer in result.unexpected_layers if not is_for_prediction(layer, spare)]:
        problem = f"the weights have layers that it does not describe: {_some(further)}"
    else:
        return
    raise origin.in_file("config.json").error(problem, hint=_RESTORE)


def _nothing_found(result: LoadResult, config: Mapping[str, Any], shapes: Shapes, origin: Origin) -> CheckpointError:
    prefix = _wrapper_prefix(config, shapes, origin)
    if prefix is not None:
        return origin.error(
            f"all tensor names begin with {prefix!r}, so {result.class_name} of transformers finds no weights",
            hint="save the model inside the wrapper, for DataParallel: model.module.save_pretrained(folder)",
            tensor=min(shapes),
        )
    return origin.error(
        f"{result.class_name} of transformers finds none of its weights: the tensors have other names "
        f"({min(shapes)!r}, for example)",
        hint=_RESTORE,
        tensor=min(shapes),
    )


def _wrapper_prefix(config: Mapping[str, Any], shapes: Shapes, origin: Origin) -> str | None:
    """Return the common prefix of all names without which the class finds its weights, None if there is none."""
    first, last = min(shapes), max(shapes)
    for end in (dot.end() for dot in re.finditer(r"\.", first)):
        if not last.startswith(first[:end]):
            break
        result = load_without_values(config, {name[end:]: shape for name, shape in shapes.items()}, origin)
        if isinstance(result, LoadResult) and result.finds_any:
            return first[:end]
    return None


def _described(mismatch: Mismatch) -> str:
    in_files, by_config = describe_shape(mismatch.in_files), describe_shape(mismatch.by_config)
    return f"{mismatch.name!r} is {in_files} in the files and {by_config} by the config"


def _some(names: Sequence[str]) -> str:
    return listed(names, most=_MOST_NAMES)
