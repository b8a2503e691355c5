"""Folder of the embedded Hub, opened for its request handlers."""

from __future__ import annotations

from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.localhub.collections import Collections
from hubmerge.localhub.durable import TemporaryFolder
from hubmerge.localhub.multipart import Multiparts
from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.possession import Possession
from hubmerge.localhub.registry import Registry
from hubmerge.localhub.slots import Slots
from hubmerge.localhub.usage import Usage
from hubmerge.localhub.users import Users
from hubmerge.localhub.xet.rebuild import Xorbs
from hubmerge.support.files import make_folder

DEFAULT_PART_BYTES = 64 * 1024 * 1024
COMMITS_AT_ONCE, UPLOADS_AT_ONCE, SHARDS_AT_ONCE = 8, 32, 2
"""Bodies of one user that are received at the same time."""


class Site:
    """Open folder of a Hub.

    Args:
        root: the folder; created if it is missing.
        part_bytes: large files above this size are uploaded in parts of this size.

    Raises:
        MachineError: the folder cannot be created or written.
    """

    def __init__(self, root: Path, *, part_bytes: int = DEFAULT_PART_BYTES) -> None:
        self.root = root
        try:
            make_folder(root.absolute())
            self.temporary = TemporaryFolder(root)
        except OSError as error:
            raise MachineError(
                f"the Hub folder {root} cannot be used: {error.strerror or error}",
                hint="choose a folder that you may write to: --root DIR",
                file=str(root),
            ) from error
        try:
            self.users = Users(root, self.temporary)
        except MachineError:
            self.temporary.close()
            raise
        self.store = ObjectStore(root, self.temporary)
        self.multiparts = Multiparts(self.store, self.temporary, part_bytes)
        self.possession = Possession(root, self.temporary)
        self.usage = Usage(root, self.temporary)
        self.xorbs = Xorbs(root, self.store, self.possession, self.usage, self.temporary)
        self.collections = Collections(root, self.temporary)
        self.registry = Registry(root, self.store, self.temporary)

        self.commit_slots = Slots(COMMITS_AT_ONCE)
        self.upload_slots = Slots(UPLOADS_AT_ONCE)
        self.shard_slots = Slots(SHARDS_AT_ONCE)

    def close(self) -> None:
        """Remove the temporary folder."""
        self.temporary.close()
