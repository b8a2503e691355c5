"""Heads of fine-tuned models that score tasks. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hubmerge.checkpoints.planning.class_names import class_names

if TYPE_CHECKING:
    import torch

OWN_HEAD_KINDS: Mapping[str, str] = {
    "image-classification": "ForImageClassification",
    "text-classification": "ForSequenceClassification",
}
"""Kinds of task that the head of a checkpoint can score, with the classes of transformers that have such a head."""

BASE_HEAD = "base"
"""Value of a task's key `head` that asks for the base model's head."""


@dataclass(frozen=True)
class HeadFacts:
    """What is known about a head before its values are read.

    Attributes:
        entry: the name of its entry.
        architecture: the class of the model that it belongs to, None if it is not known, as for timm.
        config: the values of the checkpoint's config that differ from the merged model's.
        labels: the number of its classes, None if the config does not have it.
        known: False if its checkpoint was not opened, because earlier steps were scored with it.
    """

    entry: str
    architecture: str | None
    config: Mapping[str, Any]
    labels: int | None
    known: bool = True

    @classmethod
    def of(cls, entry: str, facts: Mapping[str, Any]) -> HeadFacts:
        """Return the facts of a description, as `heads/NAME.json` has it."""
        return cls(entry, facts.get("architecture"), facts.get("config", {}), facts.get("num_labels"))

    @property
    def label(self) -> str:
        """Name of the head in messages."""
        return f"the head of {self.entry}"

    def full_config(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of the model with this head on the body of a base model."""
        config = {**base, **self.config}
        return config if self.architecture is None else {**config, "architectures": [self.architecture]}

    def classes(self, base: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, int]:
        """Return the names of the classes, None if there are none, and their number."""
        names = class_names(self.full_config(base))
        return names, self.labels or (2 if names is None else len(names))

    def fits(self, kind: str, *, timm: bool) -> bool:
        """Return True if the head gives what a kind of task scores.

        Args:
            kind: the kind of task.
            timm: True if the base model is one of timm.
        """
        if timm:
            return kind == "image-classification"
        ending = OWN_HEAD_KINDS.get(kind)
        return ending is not None and self.architecture is not None and ending in self.architecture


@dataclass(frozen=True)
class OwnHead:
    """A head.

    Attributes:
        facts: what is known about it.
        read: returns its values, under the names of its checkpoint.
    """

    facts: HeadFacts
    read: Callable[[], Mapping[str, torch.Tensor]]
