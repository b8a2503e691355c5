"""Tests of Xet uploads, valid and invalid."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as some

from hubmerge.localhub import LocalHub
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.site import Site
from hubmerge.localhub.users import User
from hubmerge.localhub.xet.formats import (
    GROUPED_LZ4,
    LZ4,
    PLAIN,
    Chunk,
    hash_text,
    read_chunks,
    read_shard,
    ungroup,
    unpack,
)
from tests.checks import every

NAME = bytes(range(32))
CONTENTS = (b"one" * 50, b"two" * 60, b"four" * 70)


def pack(content: bytes, compression: int) -> bytes:
    """Return a chunk with its header."""
    stored = content
    if compression == GROUPED_LZ4:
        stored = b"".join(content[position::4] for position in range(4))
    if compression != PLAIN:
        stored = pyarrow.Codec("lz4").compress(stored).to_pybytes()
    return (
        b"\0" + len(stored).to_bytes(3, "little") + bytes([compression]) + len(content).to_bytes(3, "little") + stored
    )


def shard(content: bytes, *, sha256: bytes | None = None, end: int = 3, name: bytes = NAME) -> bytes:
    """Return a shard with one file of the first chunks of a xorb."""
    digest = sha256 or hashlib.sha256(content).digest()
    # A hash is stored as four little-endian numbers.
    turned = b"".join(digest[place : place + 8][::-1] for place in range(0, 32, 8))
    return b"".join(
        [
            struct.pack("<32sQQ", b"HFRepoMetaData\0", 2, 0),
            struct.pack("<32sIIQ", b"f" * 32, 3 << 30, 1, 0),
            struct.pack("<32sIIII", name, 0, len(content), 0, end),
            b"v" * 48,
            turned + bytes(16),
            b"\xff" * 48,
        ]
    )


@pytest.mark.parametrize("compression", [PLAIN, LZ4, GROUPED_LZ4])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 1001])
def test_chunks_are_decompressed(compression: int, length: int) -> None:
    content = bytes(index % 251 for index in range(length))
    packed = pack(content, compression)
    (chunk,) = read_chunks(io.BytesIO(packed), len(packed))
    assert chunk.compression == compression
    assert unpack(chunk, packed[chunk.offset :]) == content


def test_grouped_bytes_are_reordered() -> None:
    assert ungroup(b"aebfcgd"[0:2] + b"bf" + b"cg" + b"d") == b"abcdefg"


@given(some.data())
def test_invalid_shards_raise_no_other_error(data: some.DataObject) -> None:
    whole = shard(b"".join(CONTENTS))
    place = data.draw(some.integers(0, len(whole) - 1))
    broken = whole[:place] + data.draw(some.binary(max_size=60))
    try:
        files = list(read_shard(broken))
    except BadRequest:
        return
    assert every(file.size >= 0 for file in files)


@given(some.binary(max_size=300))
def test_invalid_chunks_are_refused(content: bytes) -> None:
    for compression in (LZ4, GROUPED_LZ4):
        try:
            unpacked = unpack(Chunk(0, len(content), compression, 100), content)
        except BadRequest:
            continue
        assert len(unpacked) == 100


def test_files_are_assembled_and_checked(tmp_path: Path) -> None:
    site = Site(tmp_path)
    user = site.users.first
    content = b"".join(CONTENTS)
    compressions = (PLAIN, LZ4, GROUPED_LZ4)
    packed = b"".join(pack(*item) for item in zip(CONTENTS, compressions, strict=True)) + b"XETBLOB footer"
    with pytest.raises(BadRequest, match="was not uploaded"):
        site.xorbs.keep_files(shard(content), user)
    for bad in (packed[:100], b"\1" + packed[1:]):
        received = site.xorbs.receive()
        received.write(bad)
        with pytest.raises(BadRequest, match="Not a xorb"):
            site.xorbs.keep(received, user, hash_text(NAME))
        received.discard()
    received = site.xorbs.receive()
    received.write(packed)
    site.xorbs.keep(received, user, hash_text(NAME))
    with pytest.raises(BadRequest, match="sha256"):
        site.xorbs.keep_files(shard(content, sha256=b"w" * 32), user)
    for end in (2, 4):
        with pytest.raises(BadRequest, match="has no chunks"):
            site.xorbs.keep_files(shard(content, end=end), user)
    site.xorbs.keep_files(shard(content), user)
    assert site.store.lfs_path(hashlib.sha256(content).hexdigest()).read_bytes() == content
    assert list(site.temporary.folder.iterdir()) == []
    site.close()


def test_xorbs_of_other_users_are_unknown(tmp_path: Path) -> None:
    site = Site(tmp_path)
    owner, other = User("owner", "hf_1"), User("other", "hf_2")
    content = b"".join(CONTENTS)
    received = site.xorbs.receive()
    received.write(b"".join(pack(part, PLAIN) for part in CONTENTS))
    site.xorbs.keep(received, owner, hash_text(NAME))
    for _ in range(2):
        with pytest.raises(BadRequest, match="was not uploaded"):
            site.xorbs.keep_files(shard(content), other)
        site.xorbs.keep_files(shard(content), owner)
    sha256 = hashlib.sha256(content).hexdigest()
    assert site.possession.has(owner, sha256)
    assert not site.possession.has(other, sha256)
    site.close()


def test_hf_xet_uploads_and_downloads(local_hub: LocalHub, repo_name: Callable[..., str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
    repo = repo_name("xet")
    sent = 0
    for number in range(2):  # Another process, with the upload cache of the first one.
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("xet_client.py")), str(tmp_path / str(number)), repo, "5"],
            env={**environment, "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        xorbs = [path for path in (local_hub.site.root / "xorbs").rglob("*") if path.is_file()]
        assert xorbs, "nothing went through Xet"
        if number == 0:
            sent = sum(path.stat().st_size for path in xorbs)
    # The changed file shares nearly all chunks with the first one.
    assert 1_500_000 < sent < 3_000_000
    assert len(HfApi().list_repo_commits(repo)) >= 3


def test_chunks_need_a_xet_token(local_hub: LocalHub) -> None:
    for token in ("", "Bearer " + local_hub.token, "Bearer xet.local.9999999999.0", "Bearer ...."):
        for path in ("/v1/shards", f"/v1/xorbs/default/{'0' * 64}"):
            request = urllib.request.Request(local_hub.endpoint + path, data=b"x", method="POST")
            if token:
                request.add_header("Authorization", token)
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            caught.value.close()
            assert caught.value.code == 401
