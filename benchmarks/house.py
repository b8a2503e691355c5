"""Measurements of the code itself: rooms, floors, circles, and the sizes of modules and functions.

    python benchmarks/house.py [ROOT]

`ROOT` is a checkout (default: this one). To compare with an older version:

    git worktree add /tmp/older v0.1.0 && python benchmarks/house.py /tmp/older

A room is a package directly inside `hubmerge`, or a module that lies there on its own; `merge_recipes` is one room.
Floors are the rooms on the longest chain of imports. A circle is a set of modules that import each other, also inside
functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGES = ("hubmerge", "merge_recipes")
Graph = Mapping[str, set[str]]


def modules_of(root: Path) -> dict[str, Path]:
    """Return the files of both packages by dotted name."""
    paths = sorted(path for package in PACKAGES for path in root.glob(f"{package}/**/*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return which module imports which, both from these packages."""
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for imported in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
            target = imported
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                graph[name].add(target)
    return graph


def room_of(module: str) -> str:
    """Return the room of a module.

    >>> room_of("hubmerge.checkpoints.formats.header"), room_of("merge_recipes.lock")
    ('checkpoints', 'merge_recipes')
    """
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or "(top)" if package == "hubmerge" else package


def room_graph(graph: Graph) -> dict[str, set[str]]:
    """Return which room imports from which."""
    rooms: dict[str, set[str]] = {}
    for module, targets in graph.items():
        rooms.setdefault(room_of(module), set()).update(room_of(target) for target in targets)
    return {room: targets - {room} for room, targets in rooms.items()}


def circles(graph: Graph) -> list[set[str]]:
    """Return the sets of nodes that reach each other."""
    reached = {node: _reachable(graph, node) for node in graph}
    found: list[set[str]] = []
    for node in graph:
        circle = {other for other in reached[node] if node in reached[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph[node])
    return seen


def floors(graph: Graph) -> int:
    """Return the number of nodes on the longest chain; the nodes of a circle count as one."""
    together = {node: frozenset(circle) for circle in circles(graph) for node in circle}
    merged: dict[frozenset[str], set[frozenset[str]]] = {}
    for node, targets in graph.items():
        own = together.get(node, frozenset({node}))
        others = (together.get(target, frozenset({target})) for target in targets)
        merged.setdefault(own, set()).update(other for other in others if other != own)
    heights: dict[frozenset[str], int] = {}

    def height(node: frozenset[str]) -> int:
        if node not in heights:
            heights[node] = 1 + max((height(target) for target in merged[node]), default=0)
        return heights[node]

    return max(map(height, merged))


def functions_of(modules: Mapping[str, Path]) -> Iterator[tuple[int, int]]:
    """Yield the length in lines and the number of parameters of every function; `self` and `cls` do not count."""
    for path in modules.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                parameters = len([name for name in names if name not in {"self", "cls"}])
                yield (node.end_lineno or node.lineno) - node.lineno + 1, parameters


def measure(root: Path) -> dict[str, str]:
    """Return the measurements of one checkout, ready to print."""
    modules = modules_of(root)
    graph = import_graph(modules)
    rooms = room_graph(graph)
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in modules.values()]
    functions = list(functions_of(modules))
    long = [lines for lines, _ in functions if lines > 40]
    return {
        "modules at the top of hubmerge/": str(len(list((root / "hubmerge").glob("*.py")))),
        "rooms": str(len(rooms)),
        "floors": str(floors(rooms)),
        "circles of rooms": str(len(circles(rooms))),
        "circles of modules": str(len(circles(graph))),
        "modules": str(len(modules)),
        "lines of a module, median and most": f"{statistics.median(lengths):.0f}, {max(lengths)}",
        "modules over 300 lines": str(sum(length > 300 for length in lengths)),
        "functions over 40 lines": f"{len(long)} of {len(functions)}, the longest {max(functions)[0]}",
        "parameters at most": str(max(parameters for _, parameters in functions)),
    }


def main() -> None:
    """Print the measurements as a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    for name, value in measure(parser.parse_args().root).items():
        print(f"{name:<40} {value}")


if __name__ == "__main__":
    main()
