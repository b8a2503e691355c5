"""Free disk space that a run needs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.plan.run_plan import RunPlan
from hubmerge.support.text import readable


@dataclass(frozen=True)
class Room:
    """A disk that a run writes to: an existing folder on it, the bytes that the run needs there, and the free ones."""

    folder: Path
    needed: int
    free: int

    @property
    def problem(self) -> str | None:
        """A sentence if the disk has too little free space, None otherwise."""
        if self.needed <= self.free:
            return None
        return (
            f"not enough disk space in {self.folder}: the run needs about {readable(self.needed)}; "
            f"free: {readable(self.free)}"
        )


def rooms(plan: RunPlan, work_dir: Path, cache: Path) -> list[Room]:
    """Return the disks of the work folder and of the Hub cache.

    Files that an earlier run left in the work folder count as room: the run replaces them.

    Args:
        plan: The plan of the run.
        work_dir: The work folder.
        cache: The Hub cache.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((work_dir, max(0, plan.work_bytes - _used_bytes(work_dir))), (cache, plan.cache_bytes)):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        device = existing.stat().st_dev
        needs[device] = (existing, needs.get(device, (existing, 0))[1] + needed)
    return [Room(existing, needed, shutil.disk_usage(existing).free) for existing, needed in needs.values()]


def check_room(plan: RunPlan, work_dir: Path, cache: Path) -> None:
    """Check that the disks of the work folder and of the Hub cache have room for a run; see `rooms` for the arguments.

    Raises:
        MachineError: A disk has too little free space.
    """
    for room in rooms(plan, work_dir, cache):
        if room.problem is not None:
            raise MachineError(
                room.problem,
                hint="free some space, or choose another disk with --work-dir or HF_HOME",
                file=str(room.folder),
            )


def _used_bytes(work_dir: Path) -> int:
    """Return the size of the files of an earlier run in a work folder, without prepared evaluation data."""
    kept = [path for path in work_dir.glob("*") if path.name != "cache"]
    files = [*kept, *(file for path in kept for file in path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
