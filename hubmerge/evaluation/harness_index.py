"""Names of the tasks of lm-evaluation-harness, and the definitions behind them. Importing it does not import lm_eval.

The package has 14,000 files. They are searched for names, which takes a second; only the folders of a task are read by
the harness itself. No function that a definition names is imported here.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.harness_quiet import quiet
from hubmerge.support.versions import INSTALL_EVAL
from merge_recipes import Task

PACKAGE = "lm_eval"
MAX_LEAVES = 500
MAX_DEPTH = 8

_NAME = re.compile(r"""^["']?(?:task|group)["']?:[ \t]*["']?([^\s"'#\[\]-][^\n"'#]*?)["']?[ \t\r]*(?:#.*)?$""", re.M)
_TAG = re.compile(r"""^["']?tag["']?:[ \t]*(.*(?:\n[ \t]*- .*)*)""", re.M)
_WORD = re.compile(r"[\w.:@+/-]+")


@dataclass(frozen=True)
class HarnessTask:
    """A task or group of the harness.

    Attributes:
        name: its name there; the name in the recipe for a definition in the recipe.
        spec: what the harness builds it from: names, or the keys of a definition.
        leaves: the definition of each task in it, by name. Functions are named, not imported.
        group: the keys of the group, None for a single task.
        manager: the harness's task manager.
    """

    name: str
    spec: list[Any]
    leaves: Mapping[str, Mapping[str, Any]]
    group: Mapping[str, Any] | None
    manager: Any

    @property
    def is_installed(self) -> bool:
        """True for a task that comes with the harness."""
        return not isinstance(self.spec[0], dict)


def members_of(found: HarnessTask) -> tuple[HarnessTask, ...]:
    """Return the tasks and groups that a group names itself; all its tasks for a tag, or if a name has no entry."""
    listed = (found.group or {}).get("task")
    items = listed if isinstance(listed, list) else [listed]
    names = [one.get("group") or one.get("task") if isinstance(one, Mapping) else one for one in items]
    if all(isinstance(name, str) and name in _names() for name in names):
        members = [_installed_task(str(name), found.name) for name in dict.fromkeys(names)]
        if {leaf for one in members for leaf in one.leaves} == found.leaves.keys():
            return tuple(replace(one, leaves={leaf: found.leaves[leaf] for leaf in one.leaves}) for one in members)
    return tuple(HarnessTask(leaf, [leaf], {leaf: keys}, None, found.manager) for leaf, keys in found.leaves.items())


def find_harness_task(task: Task) -> HarnessTask:
    """Return the task of the harness that a task of a recipe names or defines.

    Raises:
        EvaluationError: the package is not installed, or has no task of this name.
    """
    check_installed(task.name)
    if isinstance(task.task, dict):
        source = {"dataset_path": task.dataset.written_path, "dataset_name": task.dataset.name}
        spec = {**source, **task.task, "task": task.name}
        return HarnessTask(task.name, [spec], {task.name: spec}, None, _manager(()))
    return _installed_task(str(task.task), f"task {task.name}")


def check_installed(name: str) -> None:
    """Check that the harness is installed.

    Raises:
        EvaluationError: it is not.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise EvaluationError(
            f"task {name}: the kind lm-eval needs the package lm-eval, which is not installed", hint=INSTALL_EVAL
        )


@cache
def _installed_task(name: str, place: str) -> HarnessTask:
    names = _names()
    if name not in names:
        raise EvaluationError(
            f"{place}: lm-evaluation-harness has no task {name!r}{_near(name, names)}",
            hint="list the names with `lm-eval ls tasks`",
        )
    folders = {*names[name]}
    while True:
        manager = _manager(tuple(sorted(map(str, folders))))
        leaves: dict[str, Mapping[str, Any]] = {}
        missing: set[str] = set()
        for leaf, keys in _leaves(manager.task_index, name, {}, missing):
            leaves.setdefault(leaf, keys)
        found = {folder for one in missing for folder in names.get(one, ())} - folders
        if not found:
            break
        folders |= found
    if missing or not leaves or len(leaves) > MAX_LEAVES:
        problem = f"has no task {sorted(missing)[0]!r}" if missing else f"has {len(leaves)} tasks"
        hint = f"name the tasks that you need, at most {MAX_LEAVES} in one group"
        raise EvaluationError(f"{place}: the group {name!r} of lm-evaluation-harness {problem}", hint=hint)
    entry = manager.task_index[name]
    group = None if set(leaves) == {name} else dict(entry.cfg or {})
    spec = sorted(leaves) if entry.kind.name == "TAG" else [name]
    return HarnessTask(name, spec, leaves, group, manager)


def _near(name: str, names: Collection[str]) -> str:
    """Return the names that are similar to one, as the end of a message."""
    by_lower = {one.lower(): one for one in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.75)
    return f"; did you mean {' or '.join(by_lower[one] for one in found)}?" if found else ""


@cache
def _names() -> Mapping[str, tuple[Path, ...]]:
    """Return the folders of every task, group and tag of the installed harness."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    root = Path(places[0] if places else "") / "tasks"
    found: dict[str, dict[Path, None]] = {}
    files = (one for one in root.rglob("*") if one.suffix in {"", ".yaml"} and one.is_file())
    for file in sorted(files):  # files without an ending are included by others, and may have tags
        text = file.read_text(encoding="utf-8", errors="replace")
        tags = (word for match in _TAG.findall(text) for word in _WORD.findall(match) if word != "-")
        for name in (*(_NAME.findall(text) if file.suffix else ()), *tags):
            found.setdefault(name, {})[file.parent] = None
    return {name: tuple(folders) for name, folders in found.items()}


@cache
def _manager(folders: tuple[str, ...]) -> Any:
    with ExitStack() as stack:
        stack.enter_context(quiet())
        tasks: Any = importlib.import_module("lm_eval.tasks")
        return tasks.TaskManager(include_path=list(folders) or None, include_defaults=False)


@cache
def _members(tag: str) -> tuple[str, ...]:
    """Return the tasks of a tag. A manager of several folders knows those of the last one only."""
    indices = (_manager((str(folder),)).task_index for folder in _names().get(tag, ()))
    return tuple(sorted({member for index in indices if tag in index for member in index[tag].tags}))


def _leaves(
    index: Mapping[str, Any], name: str, changes: Mapping[str, Any], missing: set[str], depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the tasks of a task, group or tag, each with its keys; names that the index lacks go to `missing`."""
    entry = index.get(name)
    if entry is None or depth > MAX_DEPTH:
        missing.add(name)
        return
    keys = entry.cfg or {}
    if entry.kind.name == "TAG":
        for member in _members(name):
            yield from _leaves(index, member, changes, missing, depth + 1)
    elif entry.kind.name == "GROUP" and isinstance(keys.get("task"), list):
        for member in keys["task"]:
            yield from _member(index, member, changes, missing, depth)
    else:
        yield name, {**keys, **changes, "task": name}


def _member(
    index: Mapping[str, Any], member: Any, changes: Mapping[str, Any], missing: set[str], depth: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(member, str):
        yield from _leaves(index, member, changes, missing, depth + 1)
    elif "group" in member and isinstance(member.get("task"), list) and member["group"] not in index:
        for inner in member["task"]:
            yield from _member(index, inner, changes, missing, depth + 1)
    else:
        name = member.get("group", member.get("task"))
        own = {**changes, **{key: value for key, value in member.items() if key not in {"task", "group"}}}
        yield from _leaves(index, str(name), own, missing, depth + 1)
