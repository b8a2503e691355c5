"""Run the embedded Hub: in a thread of a program, or as a program of its own."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path
from types import TracebackType

import uvicorn
from starlette.types import ASGIApp

from hubmerge.errors import MachineError
from hubmerge.localhub.connections import Connection
from hubmerge.localhub.faults import Faults, Throttle
from hubmerge.localhub.site import DEFAULT_PART_BYTES, Site
from hubmerge.localhub.web.app import build_app

STOP_SECONDS = 10.0
MOST_CONNECTIONS = 2000
"""Open connections. Further ones get status 503."""


def bind(host: str, port: int) -> socket.socket:
    """Bind a socket to a port; 0 binds any free port.

    Raises:
        MachineError: the port is in use, or the address is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise MachineError(
            f"the Hub cannot listen on {host} port {port}: {error.strerror or error}",
            hint="choose another port with --port, or --port 0 for any free port",
        ) from error
    return bound


class LocalHub:
    """Hub on this machine, with its files in one folder.

        with LocalHub(Path("hub")) as hub:
            HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("local/model")

    Args:
        root: the folder; created if it is missing. The repos and the token stay in it.
        host: the address to listen on; by default, other machines cannot connect.
        port: the port; 0 for any free port.
        part_bytes: large files above this size are uploaded in parts of this size.
        throttle: bandwidth in each direction, in megabytes per second; None for no limit.
        faults: the fraction of requests that fail, from 0 to 1; `hub.faults.set` changes it while the Hub serves.
        fault_seed: the seed that decides which requests fail.

    Raises:
        MachineError: the folder or the port cannot be used.
    """

    def __init__(
        self,
        root: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        part_bytes: int = DEFAULT_PART_BYTES,
        throttle: float | None = None,
        faults: float = 0.0,
        fault_seed: int = 0,
    ) -> None:
        self.site = Site(root, part_bytes=part_bytes)
        try:
            self._socket = bind(host, port)
        except MachineError:
            self.site.close()
            raise
        self._socket.listen(2048)
        self.token = self.site.users.first.token
        self.faults = Faults(build_app(self.site), faults, fault_seed)
        app: ASGIApp = self.faults
        if throttle is not None:
            app = Throttle(app, throttle)
        config = uvicorn.Config(
            app,
            # Uvicorn logs each response that is cut on purpose.
            log_level="critical" if faults > 0 else "warning",
            access_log=False,
            # This implementation limits the size of addresses and headers.
            http=Connection,
            limit_concurrency=MOST_CONNECTIONS,
            lifespan="off",
            ws="none",
            server_header=False,
            # The clients do not retry some calls, so a connection stays open between two requests.
            timeout_keep_alive=60,
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """The address for `HF_ENDPOINT`."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> LocalHub:
        """Serve in a thread of this process. Connections are accepted as soon as this returns."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="local-hub", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop the server after its current requests, and remove the temporary folder."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
            self._thread = None
        self._socket.close()
        self.site.close()

    def __enter__(self) -> LocalHub:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    root: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    throttle: float | None = None,
    faults: float = 0.0,
    fault_seed: int = 0,
) -> None:
    """Print the clients' settings, and serve the Hub folder `root` until SIGINT or SIGTERM.

    The arguments are those of `LocalHub`. Call it from the main thread.

    Raises:
        MachineError: the folder or the port cannot be used.
    """
    hub = LocalHub(root, host, port, throttle=throttle, faults=faults, fault_seed=fault_seed)
    stop = threading.Event()
    earlier = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        hub.start()
        print(f"# Hub with its files in {root.absolute()}. To use it with a Hugging Face client:")
        print(f"export HF_ENDPOINT={hub.endpoint}")
        print(f"export HF_TOKEN={hub.token}", flush=True)
        stop.wait()
    finally:
        hub.stop()
        for number, handler in earlier.items():
            signal.signal(number, handler)
