"""What each key of a section means: the text below the attribute, read from the source when it is first needed.

pydantic can read these texts when it builds a class, which takes a seventh of the time of `hubmerge check`. Only
messages about missing keys and the JSON Schema need them.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel


def key_texts(model: type[BaseModel]) -> Mapping[str, str]:
    """Return what each key of a section means, for keys with an explanation.

    Args:
        model: class of the section; a description given to `Field` precedes the text below the attribute.
    """
    texts: dict[str, str] = {}
    for part in reversed(model.__mro__):
        texts |= _texts_in(part.__module__).get(part.__qualname__, {})
    fields = model.model_fields
    texts |= {key: field.description for key, field in fields.items() if field.description}
    return {key: text for key, text in texts.items() if key in fields}


@cache
def _texts_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Return the texts below the attributes of all classes at the top of a module; none without its source."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return {}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: _texts_of(node) for node in classes}


def _texts_of(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for attribute, below in zip(node.body, node.body[1:], strict=False):
        match attribute, below:
            case (
                ast.AnnAssign(target=ast.Name(id=key)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[key] = inspect.cleandoc(text)
    return found
