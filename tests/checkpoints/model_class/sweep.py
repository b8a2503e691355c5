"""One class of transformers for each type of config, built as transformers builds it, without values."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Built:
    """A class that transformers builds from the default config of a type.

    Attributes:
        config: the content of the config.json that transformers writes.
        model: the model on torch's meta device.
    """

    config: dict[str, Any]
    model: Any


@cache
def config_types() -> tuple[str, ...]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return tuple(CONFIG_MAPPING)


def built(model_type: str) -> Built | None:
    """Return the class for a type of config, None if transformers cannot build one from the default config."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with tempfile.TemporaryDirectory() as folder:
        try:
            CONFIG_MAPPING[model_type]().save_pretrained(folder)
            read = AutoConfig.from_pretrained(folder, local_files_only=True)
            found = next(_classes(type(read)))
            with torch.device("meta"):
                model = found._from_config(read, attn_implementation="eager")
        except Exception:  # defaults of a config may be incomplete, or a class may need a library
            return None
        content = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return Built({**content, "architectures": [found.__name__]}, model)


def _classes(config_class: type) -> Iterator[Any]:
    """Yield the classes of models with this config, the one without a head first."""
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if config_class in MODEL_MAPPING:
        found = MODEL_MAPPING[config_class]
        yield from found if isinstance(found, tuple) else (found,)
    module = importlib.import_module(config_class.__module__.replace("configuration_", "modeling_"))
    for found in vars(module).values():
        model = isinstance(found, type) and issubclass(found, PreTrainedModel)
        if model and found.config_class is config_class and not found.__name__.endswith("PreTrainedModel"):
            yield found
