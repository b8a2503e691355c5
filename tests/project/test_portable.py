"""What cannot work on Windows or macOS and can be seen in the code: names, modes and modules of POSIX alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "termios", "tty", "curses", "crypt", "spwd", "syslog"}
NAMES = {
    "os": {
        *("preadv", "pwritev", "pread", "pwrite", "posix_fallocate", "posix_fadvise", "sendfile", "sysconf", "statvfs"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_DIRECT", "O_BINARY", "SCHED_IDLE", "nice", "uname", "mkfifo"),
        *("fork", "forkpty", "setsid", "killpg", "getpgid", "getuid", "geteuid", "getgid", "getloadavg", "chown"),
        *("sched_getaffinity", "sched_setaffinity", "fchmod", "register_at_fork", "symlink", "fdatasync", "wait4"),
    },
    "signal": {
        *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE", "SIGCHLD", "SIGSTOP", "SIGCONT", "SIGTSTP"),
        *("pthread_kill", "pthread_sigmask", "alarm", "setitimer", "pause", "sigwait", "siginterrupt"),
    },
}
"""Attributes that some system lacks."""

METHODS = {"symlink_to", "lchmod"}
PLACES = ("/dev/", "/tmp/", "/proc/", "/etc/", "/var/")  # noqa: S108 - looked for, not used


def sources() -> Iterator[Path]:
    for package in ("hubmerge", "merge_recipes"):
        yield from sorted((ROOT / package).rglob("*.py"))


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of everything that some system lacks and that no condition surrounds."""
    guarded = {id(inner) for node in ast.walk(tree) for inner in _guarded(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and id(node) not in guarded:
            if node.attr in NAMES.get(node.value.id, ()):
                yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            yield from ((node.lineno, name) for name in found if name in MODULES)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(PLACES):
            yield node.lineno, node.value
        if isinstance(node, ast.Call):
            yield from _call_faults(node)


def _guarded(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs only where a system has the name: after `hasattr`, or where an AttributeError is caught."""
    if isinstance(node, (ast.If, ast.IfExp)):
        guards = "hasattr" in ast.unparse(node.test)
    elif isinstance(node, ast.FunctionDef):
        guards = any(isinstance(one, ast.If) and "not hasattr" in ast.unparse(one.test) for one in node.body)
    else:
        guards = isinstance(node, ast.With) and any("AttributeError" in ast.unparse(one) for one in node.items)
    if guards:
        yield from ast.walk(node)
    elif isinstance(node, ast.Try) and any(
        "AttributeError" in ast.unparse(one.type) for one in node.handlers if one.type
    ):
        yield from (inner for one in node.body for inner in ast.walk(one))


def _call_faults(node: ast.Call) -> Iterator[tuple[int, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    keys = {one.arg for one in node.keywords}
    if name in METHODS:
        yield node.lineno, name
    if name == "write_text" and not {"encoding", "newline"} <= keys:
        yield node.lineno, "write_text without encoding and newline"
    if name == "read_text" and "encoding" not in keys and isinstance(node.func, ast.Attribute) and not node.args:
        yield node.lineno, "read_text without encoding"
    modes = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    is_text = any(set(mode) <= set("wax+") for mode in modes if mode)
    others = ("os.", "tarfile.", "zipfile.")
    if (
        name == "open"
        and is_text
        and not ast.unparse(node.func).startswith(others)
        and not {"encoding", "newline"} <= keys
    ):
        yield node.lineno, "text file without encoding and newline"


def test_the_code_names_nothing_that_only_posix_has() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources()
        for line, name in faults(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import fcntl",
        "os.preadv(1, [], 0)",
        "flags = os.O_RDWR | os.O_CLOEXEC",
        "signal.pthread_kill(1, 2)",
        "path.write_text('x', encoding='utf-8')",
        "path.open('a', encoding='utf-8')",
        "open('/dev/null')",
        "path.read_text()",
        "if ready:\n    os.pread(1, 2, 3)",
    ],
)
def test_each_kind_of_fault_is_found(code: str) -> None:
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "if hasattr(os, 'preadv'):\n    os.preadv(1, [], 0)",
        "def free():\n    if not hasattr(os, 'O_DIRECTORY'):\n        return\n    os.open('x', os.O_DIRECTORY)",
        "with suppress(AttributeError):\n    os.sysconf('SC_PAGE_SIZE')",
        "try:\n    os.sysconf('SC_PAGE_SIZE')\nexcept AttributeError:\n    pass",
        "path.write_text('x', encoding='utf-8', newline='\\n')",
        "path.open('rb')",
    ],
)
def test_what_every_system_can_do_is_no_fault(code: str) -> None:
    assert not list(faults(ast.parse(code)))
