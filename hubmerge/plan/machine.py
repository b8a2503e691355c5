"""What this machine and its account may lack for a run: disk, memory, an access token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from hubmerge.hub.client import has_token
from hubmerge.hub.fetch import hub_cache
from hubmerge.hub.offline import is_offline
from hubmerge.plan.disk import rooms
from hubmerge.plan.run_plan import RunPlan
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.text import readable

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_warnings(plan: RunPlan) -> Iterator[str]:
    """Yield one sentence for each thing that a run needs and this machine lacks."""
    if not plan.steps:
        return
    with suppress(OSError):
        for room in rooms(plan, user_cache_folder("runs"), hub_cache()):
            if room.problem is not None:
                yield f"{room.problem} (choose another disk with `run --work-dir` or HF_HOME)"
    memory = machine_memory()
    if memory is not None and plan.memory_bytes > memory:
        yield f"the run needs about {readable(plan.memory_bytes)} of memory; this machine has {readable(memory)}"
    publish = plan.stream.recipe.publish
    if publish is not None and not has_token():
        yield f"no access token, so nothing can be published to {publish.repo}: run `hf auth login`, or set HF_TOKEN"
    if publish is not None and is_offline():
        yield f"offline: nothing can be published to {publish.repo}; unset HF_HUB_OFFLINE"


def machine_memory() -> int | None:
    """Return the memory of this machine, or of its container, in bytes; None if the system does not tell."""
    found: list[int] = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):
        found.append(int(_CGROUP_LIMIT.read_text(encoding="ascii")))
    return min(found, default=None)
