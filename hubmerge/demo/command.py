"""`hubmerge demo`: make the stream, push it to a Hub, and run the quickstart recipe in a process of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.demo.make_stream import make_stream
from hubmerge.demo.plan import NAMESPACE
from hubmerge.errors import HubmergeError, MachineError
from hubmerge.support import child_signals, interrupts
from hubmerge.support.text import in_shell

if TYPE_CHECKING:
    from hubmerge.localhub import LocalHub

Echo = Callable[[str], None]


def run_demo(
    root: Path,
    endpoint: str | None = None,
    echo: Echo = print,
    *,
    seed: int = 0,
    namespace: str = NAMESPACE,
    run_arguments: Sequence[str] = (),
) -> None:
    """Run the demo in one folder, and reuse the files that an earlier call left there.

    Args:
        root: the folder of the demo.
        endpoint: the Hub to use, with the token of HF_TOKEN or of the login; None starts the embedded Hub with its
            files under `root`.
        echo: called with each line of output.
        seed: the seed of all weights and images.
        namespace: the namespace of the repos.
        run_arguments: more arguments for `hubmerge run`, for example --quiet.

    Raises:
        HubmergeError: a part of the demo failed; if it was the run, the error has the run's exit status.
    """
    root = root.absolute()
    if endpoint:
        os.environ["HF_ENDPOINT"] = endpoint
        _on_hub(root, endpoint, None, echo, seed, namespace, run_arguments)
        return
    with _embedded_hub(root) as hub:
        echo(f"the embedded Hub runs at {hub.endpoint}")
        # The run inherits these. huggingface_hub reads them once, on import, which has not happened yet in this
        # process. Plain uploads are faster than Xet on the machine of the Hub.
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(root / "home")}
        os.environ |= {**settings, "HF_HUB_DISABLE_XET": "1"}
        _on_hub(root, hub.endpoint, hub.token, echo, seed, namespace, run_arguments)
        port = hub.endpoint.rpartition(":")[2]
    echo("The embedded Hub has stopped. To open these addresses, restart it:")
    program = "hubmerge" if shutil.which("hubmerge") else str(Path(sys.executable).with_name("hubmerge"))
    echo(f"  {in_shell(program)} hub serve --root {in_shell(root / 'hub')} --port {port}")


def quickstart_recipe() -> Path:
    """Return the path of the quickstart recipe: beside this module if installed, under recipes/ in a checkout.

    Raises:
        MachineError: the recipe is in neither place.
    """
    here = Path(__file__)
    for path in (here.with_name("quickstart.yaml"), here.parents[2] / "recipes" / "quickstart.yaml"):
        if path.is_file():
            return path
    raise MachineError(
        "the quickstart recipe is not installed",
        hint="in a checkout of hubmerge: pip install --force-reinstall --no-deps .",
    )


def _embedded_hub(root: Path) -> LocalHub:
    """Return a Hub with its files under `root`, on the port of the earlier call if it is free."""
    from hubmerge.localhub import LocalHub

    port_file = root / "port"
    hub = LocalHub(root / "hub", port=_port_if_free(port_file))
    port_file.write_text(hub.endpoint.rpartition(":")[2], encoding="ascii", newline="\n")
    return hub


def _port_if_free(file: Path) -> int:
    """Return the port that the file names if it is free, otherwise 0 for any free port."""
    try:
        port = int(file.read_text(encoding="ascii"))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    except (OSError, ValueError, OverflowError):
        return 0
    return port


def _on_hub(
    root: Path,
    endpoint: str,
    token: str | None,
    echo: Echo,
    seed: int,
    namespace: str,
    run_arguments: Sequence[str],
) -> None:
    stream = make_stream(root / "stream", seed, progress=echo, namespace=namespace)

    from hubmerge.demo.seed import seed_hub

    seed_hub(stream, echo, endpoint=endpoint, token=token)
    recipe = quickstart_recipe()
    if namespace != NAMESPACE:
        text = recipe.read_text(encoding="utf-8").replace(f"{NAMESPACE}/", f"{namespace}/")
        recipe = root / "quickstart.yaml"
        recipe.write_text(text, encoding="utf-8", newline="\n")
    arguments = ["run", str(recipe), "--work-dir", str(root / "work"), *run_arguments]
    echo(f"$ hubmerge {shlex.join(arguments)}")
    _run([sys.executable, "-m", "hubmerge", *arguments])


def _run(command: list[str]) -> None:
    """Run a command with the output of this process, and forward signals to it."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupts.delayed():
            # In a session of its own, the process receives each signal once, from this process.
            process = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - hubmerge itself
        with child_signals.forwarded(process.send_signal):
            status = process.wait()
    finally:
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()
    if status == interrupts.INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        failure = HubmergeError(
            f"the run of the quickstart recipe failed with exit status {status}; its message is above"
        )
        failure.exit_code = status if status > 0 else 1
        raise failure
