"""Client with hf_xet: `HF_ENDPOINT=... HF_TOKEN=... python xet_client.py FOLDER REPO SEED`.

It uploads files of each compression, changes a part of one, uploads again, downloads and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy
from huggingface_hub import CommitOperationAdd, HfApi, constants, snapshot_download


def main(folder: Path, repo: str, seed: int) -> None:
    assert not constants.HF_HUB_DISABLE_XET
    api = HfApi()
    api.create_repo(repo, exist_ok=True)
    random = numpy.random.default_rng(seed)
    floats = random.standard_normal(400_000).astype("float32")
    files = {
        "floats.bin": floats.tobytes(),
        "noise.bin": random.bytes(300_000),
        "zeros.bin": bytes(500_000),
        "words.bin": b"the same words again and again " * 20_000,
        "tiny.bin": b"x",
        "deep/er/notes.txt": b"a regular file",
        "empty.bin": b"",
    }
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(repo, operations, commit_message="From memory")
    floats[200_000:200_010] = 0
    files["floats.bin"] = floats.tobytes()
    files["more.bin"] = files["noise.bin"] + files["words.bin"]
    for path, content in files.items():
        (folder / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "up" / path).write_bytes(content)
    done = api.upload_folder(repo_id=repo, folder_path=folder / "up", commit_message="From a folder")
    down = Path(snapshot_download(repo, revision=done.oid, cache_dir=folder / "cache"))
    for path, content in files.items():
        assert (down / path).read_bytes() == content, path


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
