"""Memory and disk that the embedded Hub takes for bodies that callers send.

    python benchmarks/localhub.py                  # the table
    python benchmarks/localhub.py --gigabytes 0.2  # smaller bodies

Every row is a server of its own. "sent" is what the caller could send before the answer, "memory" the highest resident
memory during the request less what was resident before it, and "disk" what the folder of the Hub has grown by at the
end. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

BLOCK = bytes(range(256)) * 4096
"""1 MiB."""
USERS = [
    {"name": "ann", "token": "hf_ann"},
    {"name": "eve", "token": "hf_eve"},
]
COMMIT = "/api/models/ann/model/commit/main"


@dataclass(frozen=True)
class Outcome:
    """Status of the answer, and the number of bytes that were sent before it."""

    status: int
    sent: int


@dataclass(frozen=True)
class Server:
    """Running Hub."""

    host: str
    port: int
    process: int
    root: Path

    def memory(self, field: str) -> int:
        """Return VmRSS (now) or VmHWM (the highest) in bytes."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise LookupError(field)

    def forget_highest(self) -> None:
        """Let VmHWM begin again at VmRSS."""
        Path(f"/proc/{self.process}/clear_refs").write_text("5")

    def disk(self) -> int:
        """Return the bytes of all files of the Hub on the disk."""
        return sum(path.stat().st_blocks * 512 for path in self.root.rglob("*") if path.is_file())

    def ask(self, method: str, path: str, user: str | None, body: object = None) -> dict[str, object]:
        """Send a small request, and return the JSON of its answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        headers = {"Authorization": f"Bearer hf_{user}"} if user else {}
        connection.request(method, path, json.dumps(body), {**headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read() or b"{}")
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content}")
        return dict(content) if isinstance(content, dict) else {}


@contextmanager
def serve() -> Iterator[Server]:
    """Run a Hub with two users, and a repo of the first one."""
    with tempfile.TemporaryDirectory(prefix="hubmerge-localhub-") as folder:
        root = Path(folder)
        (root / "users.json").write_text(json.dumps({"signing_key": "00", "users": USERS}))
        command = [sys.executable, "-m", "hubmerge.localhub", "--root", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            address = next(line for line in process.stdout if "HF_ENDPOINT" in line).strip().partition("=")[2]
            place = urlsplit(address)
            server = Server(str(place.hostname), int(place.port or 0), process.pid, root)
            server.ask("POST", "/api/repos/create", "ann", {"name": "model"})
            yield server
        finally:
            process.terminate()
            process.wait()


def send(
    server: Server, method: str, path: str, user: str | None, size: int | None, blocks: Iterable[bytes]
) -> Outcome:
    """Send a body until it ends or an answer arrives. Without a size, it is sent in chunks of unknown number."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {server.host}:{server.port}"]
    head += [f"Authorization: Bearer hf_{user}"] if user else []
    head += ["Transfer-Encoding: chunked"] if size is None else [f"Content-Length: {size}"]
    sent = 0
    with socket.create_connection((server.host, server.port), timeout=600) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        # A caller with bad intentions sends on; most of what it sends is in the buffers of the kernel.
        with suppress(ConnectionError):
            for block in blocks:
                if select.select([connection], [], [], 0)[0]:
                    break
                connection.sendall(block if size is not None else f"{len(block):x}\r\n".encode() + block + b"\r\n")
                sent += len(block)
            else:
                if size is None:
                    connection.sendall(b"0\r\n\r\n")
        answer = connection.recv(4000)
    return Outcome(int(answer.split(b" ", 2)[1]), sent)


def repeated(size: int) -> Iterator[bytes]:
    """Yield `size` bytes in blocks."""
    while size > 0:
        yield BLOCK[:size]
        size -= len(BLOCK)


def anonymous_body(server: Server, size: int) -> Outcome:
    """Send a large commit without a token."""
    return send(server, "POST", COMMIT, None, size, repeated(size))


def anonymous_endless_body(server: Server, size: int) -> Outcome:
    """Send a commit without a token and without a length."""
    return send(server, "POST", COMMIT, None, None, repeated(size))


def stranger_body(server: Server, size: int) -> Outcome:
    """Send a large commit to somebody else's repo."""
    return send(server, "POST", COMMIT, "eve", size, repeated(size))


def long_line(server: Server, size: int) -> Outcome:
    """Send a commit of one line, without a length."""
    return send(server, "POST", COMMIT, "ann", None, (block.replace(b"\n", b" ") for block in repeated(size)))


def long_json(server: Server, size: int) -> Outcome:
    """Send a large JSON body, without a length."""
    return send(server, "POST", "/api/repos/create", "ann", None, repeated(size))


def full_commit(server: Server, size: int) -> Outcome:
    """Send a commit of regular files with 5 MB each, up to the limit of a commit."""
    content = "eA==" + "A" * 5_000_000
    lines = [json.dumps({"key": "header", "value": {"summary": "large"}}).encode() + b"\n"]
    for number in range(max(1, min(size, 1_000_000_000) // len(content))):
        value = {"path": f"{number}.txt", "content": f"{number} {content}"}
        lines.append(json.dumps({"key": "file", "value": value}).encode() + b"\n")
    return send(server, "POST", COMMIT, "ann", sum(map(len, lines)), lines)


def announce(server: Server, user: str, size: int, *, parts: bool) -> tuple[str, dict[str, str], str]:
    """Ask for the upload of a large file; return its address, the addresses of its parts, and its SHA-256."""
    digest = hashlib.sha256()
    for block in repeated(size):
        digest.update(block)
    sha256 = digest.hexdigest()
    transfers = ["multipart", "basic"] if parts else ["basic"]
    asked = {"operation": "upload", "transfers": transfers, "objects": [{"oid": sha256, "size": size}]}
    answer = server.ask("POST", "/ann/model.git/info/lfs/objects/batch", user, asked)
    upload = answer["objects"][0]["actions"]["upload"]  # type: ignore[index]
    return urlsplit(upload["href"]).path, upload.get("header", {}), sha256


def large_file(server: Server, size: int) -> Outcome:
    """Upload a large file in one piece, and commit it."""
    address, _, sha256 = announce(server, "ann", size, parts=False)
    outcome = send(server, "PUT", address, None, size, repeated(size))
    add(server, "ann", COMMIT, sha256)
    return outcome


def large_file_in_parts(server: Server, size: int) -> Outcome:
    """Upload a large file in parts for a pull request to somebody else's repo."""
    address, header, sha256 = announce(server, "eve", size, parts=True)
    part_bytes = int(header.pop("chunk_size"))
    done = []
    for number in range(1, len(header) + 1):
        length = min(part_bytes, size - (number - 1) * part_bytes)
        connection = http.client.HTTPConnection(server.host, server.port, timeout=600)
        # Parts begin at whole blocks, so that each is repeated as the file is.
        connection.request("PUT", urlsplit(header[str(number)]).path, repeated(length), {"Content-Length": str(length)})
        answer = connection.getresponse()
        answer.read()
        done.append({"partNumber": number, "etag": answer.headers["ETag"]})
        connection.close()
    server.ask("POST", address, "eve", {"oid": sha256, "parts": done})
    add(server, "eve", f"{COMMIT}?create_pr=1", sha256)
    return Outcome(200, size)


def add(server: Server, user: str, address: str, sha256: str) -> None:
    """Commit an uploaded file."""
    lines = [
        {"key": "header", "value": {"summary": "large file"}},
        {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": sha256}},
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    outcome = send(server, "POST", address, user, len(body), [body])
    if outcome.status != 200:
        raise RuntimeError(f"{address}: {outcome.status}")


ROWS: dict[str, Callable[[Server, int], Outcome]] = {
    "anonymous caller, large commit": anonymous_body,
    "anonymous caller, commit without a length": anonymous_endless_body,
    "caller without write permission": stranger_body,
    "commit of one line": long_line,
    "JSON without a length": long_json,
    "commit of regular files with 5 MB each": full_commit,
    "large file in one piece": large_file,
    "large file in parts, for a pull request": large_file_in_parts,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of a body, in units of 1,000,000,000 bytes")
    size = int(parser.parse_args().gigabytes * 1e9) // len(BLOCK) * len(BLOCK)
    print(f"bodies of {size / 1e6:,.0f} MB\n")
    print("| body | answer | sent MB | memory MB | disk MB | seconds |")
    print("|:---|---:|---:|---:|---:|---:|")
    for name, work in ROWS.items():
        with serve() as server:
            disk, before = server.disk(), server.memory("VmRSS")
            server.forget_highest()
            began = time.perf_counter()
            outcome = work(server, size)
            seconds = time.perf_counter() - began
            grown = server.memory("VmHWM") - before
            kept = server.disk() - disk
        print(
            f"| {name} | {outcome.status} | {outcome.sent / 1e6:,.1f} | {grown / 1e6:.1f} | {kept / 1e6:,.1f} "
            f"| {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
