"""A plan as plain JSON values."""

from __future__ import annotations

from typing import Any

from hubmerge.plan.durations import estimate
from hubmerge.plan.parameters_text import parameters_text
from hubmerge.plan.publication_text import published_dict
from hubmerge.plan.run_plan import RunPlan


def plan_values(plan: RunPlan) -> dict[str, Any]:
    """Return a plan as plain JSON values: its content, the parameters, the durations and what is published."""
    return {
        **plan.to_dict(),
        "parameters": parameters_text(plan.stream.recipe),
        "durations": estimate(plan).to_dict(),
        "publish": published_dict(plan),
    }
