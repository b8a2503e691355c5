"""The embedded Hub: a loopback server that the unmodified Hugging Face clients accept, with its files on disk.

`LocalHub` runs it inside a program, `serve` as a program of its own. It imports none of the clients it serves.
"""

from __future__ import annotations

from hubmerge.localhub.server import LocalHub, serve

__all__ = ["LocalHub", "serve"]
