"""Client that commits until it is killed: `python writer.py SEED`. It prints a line for each acknowledged commit."""

from __future__ import annotations

import os
import sys
import threading
from random import Random

from huggingface_hub import CommitOperationAdd, HfApi


def commit_forever(seed: int) -> None:
    """Commit large and small files, create tags and repos, without end."""
    api, random = HfApi(), Random(seed)
    repo = f"local/model-{seed % 4}"
    api.create_repo(repo, exist_ok=True)
    for step in range(10_000):
        operations = [
            CommitOperationAdd("weights.bin", random.randbytes(random.randrange(1, 300_000))),
            CommitOperationAdd(f"notes-{step % 3}.txt", f"{seed} {step} {random.random()}".encode()),
        ]
        done = api.create_commit(repo, operations, commit_message=f"step {step}")
        os.write(1, f"{repo} {done.oid}\n".encode())  # One write call, because two threads write.
        api.create_tag(repo, tag=f"{done.oid[:12]}-{step}")
        api.create_repo(f"local/new-{seed}-{step}")


if __name__ == "__main__":
    number = int(sys.argv[1])
    threads = [threading.Thread(target=commit_forever, args=(2 * number + thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
