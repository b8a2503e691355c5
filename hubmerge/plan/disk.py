"""Check of the free disk space before a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.plan.run_plan import RunPlan
from hubmerge.support.text import readable


def check_room(plan: RunPlan, work_dir: Path, cache: Path) -> None:
    """Check that the disks of the work folder and of the Hub cache have room for a run.

    Files that an earlier run left in the work folder count as room: the run replaces them.

    Args:
        plan: The plan of the run.
        work_dir: The work folder.
        cache: The Hub cache.

    Raises:
        MachineError: A disk has too little free space.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((work_dir, max(0, plan.work_bytes - _used_bytes(work_dir))), (cache, plan.cache_bytes)):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        device = existing.stat().st_dev
        needs[device] = (existing, needs.get(device, (existing, 0))[1] + needed)
    for existing, needed in needs.values():
        free = shutil.disk_usage(existing).free
        if needed > free:
            raise MachineError(
                f"not enough disk space in {existing}: the run needs about {readable(needed)}; free: {readable(free)}",
                hint="free some space, or choose another disk with --work-dir or HF_HOME",
                file=str(existing),
            )


def _used_bytes(work_dir: Path) -> int:
    """Return the size of the files of an earlier run in a work folder, without prepared evaluation data."""
    kept = [path for path in work_dir.glob("*") if path.name != "cache"]
    files = [*kept, *(file for path in kept for file in path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
