"""What is known of the rows of a task before they are downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import datasets


@dataclass(frozen=True)
class DatasetPreview:
    """Columns, number of rows and labels of a split.

    Attributes:
        features: the columns with their types, as `datasets.Features.to_dict` gives them.
        rows: the number of rows, None if only a download tells it.
        labels: every label of the label column once, None if only a download tells them.
        empty: the number of rows without a value, by column, as far as it is known.
    """

    features: dict[str, Any]
    rows: int | None = None
    labels: list[Any] | None = None
    empty: dict[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> datasets.Features:
        """The columns with their types."""
        return datasets.Features.from_dict(self.features)
