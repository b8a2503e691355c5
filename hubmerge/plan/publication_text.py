"""What a run publishes, and where, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hubmerge.hub.client import endpoint
from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.visibility import target_visibility
from hubmerge.support.names import step_tag
from hubmerge.support.text import readable
from merge_recipes.signing import Signing


def publication_texts(plan: RunPlan) -> Iterator[str]:
    """Yield what is published where, then its tags, size and parts."""
    publish = plan.stream.recipe.publish
    if publish is None:
        yield "nothing; the merged model stays on this machine (choose a folder with `run --out DIR`)"
        return
    what = "every step" if publish.steps == "every" else "the last step"
    signed = "" if publish.sign is None else f", signed {_signer(publish.sign)}"
    yield f"{what} to {publish.repo}{signed}{_new(plan)}"
    tags = _tags(plan)
    if tags:
        span = tags[0] if len(tags) == 1 else f"{tags[0]} to {tags[-1]}"
        yield f"{span}, about {readable(upload_bytes(plan))} to upload: {_files(plan)}"


def published_dict(plan: RunPlan) -> dict[str, Any] | None:
    """Return what is published as plain JSON values, None if nothing is."""
    publish, target = plan.stream.recipe.publish, plan.stream.target
    if publish is None:
        return None
    return {
        "repo": publish.repo,
        "address": f"{endpoint()}/{publish.repo}",
        "exists": target is not None and target.head is not None,
        "private": target_visibility(plan.stream) == "private",
        "tags": _tags(plan),
        "state": publish.state,
        "signed": publish.sign is not None,
        "upload_bytes": upload_bytes(plan),
    }


def upload_bytes(plan: RunPlan) -> int:
    """Return the size of the models and states that a run publishes, without reports and cards."""
    publish = plan.stream.recipe.publish
    steps = [step for step in plan.steps if plan.stream.publishes(step)]
    if publish is None or not steps:
        return 0
    states = 0 if publish.state == "none" or plan.stream.is_joint else len(steps)
    return len(steps) * plan.written.written_bytes + states * plan.state_bytes


def _tags(plan: RunPlan) -> list[str]:
    return [step_tag(step) for step in plan.steps if plan.stream.publishes(step)]


def _new(plan: RunPlan) -> str:
    publish, target = plan.stream.recipe.publish, plan.stream.target
    if publish is None or (target is not None and target.head is not None):
        return ""
    return f" (new, {'private' if publish.private else 'public'})"


def _files(plan: RunPlan) -> str:
    publish = plan.stream.recipe.publish
    if publish is None or publish.state == "none" or plan.stream.is_joint:
        return "model, card, report"
    kept = "every state" if publish.state == "every" else "last state"
    return f"model, card, report, {kept}"


def _signer(sign: Signing) -> str:
    return "with the identity of this CI job" if sign.is_keyless else f"with the key {sign.key}"
