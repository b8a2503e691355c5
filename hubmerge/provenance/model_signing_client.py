"""The only user of the packages of the extra `sign`; import it inside functions.

Signing and verifying use digests that are known already, so that no weights are read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from model_signing import hashing, manifest, signing, verifying
from model_signing._hashing.hashing import Digest
from sigstore.oidc import detect_credential

from hubmerge.support.names import GIT_ATTRIBUTES, SIGNATURE_FILE

__all__ = [
    "InvalidSignature",
    "detect_credential",
    "has_supported_curve",
    "load_pem_private_key",
    "load_pem_public_key",
    "sign_files",
    "verifier_of_identity",
    "verifier_of_key",
    "verify_files",
]

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_IGNORED = (SIGNATURE_FILE, GIT_ATTRIBUTES, ".git", ".github", ".gitignore")


class _KnownDigests(hashing.Config):
    """Digests of a model's files, in the place of a folder that is hashed."""

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        super().__init__()
        self._name = name
        self._files = files

    def hash(self, model_path: Any, *, files_to_hash: Iterable[Any] | None = None) -> manifest.Manifest:  # noqa: ARG002
        """Return the files with their digests; nothing is read."""
        form = manifest.SerializationType.from_args(
            {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": _IGNORED}
        )
        items = [
            manifest.FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(digest)))
            for name, digest in sorted(self._files.items())
        ]
        return manifest.Manifest(self._name, items, form)

    def add_ignored_paths(self, *, model_path: Any, paths: Iterable[Any]) -> None:
        """Do nothing: files that a signature leaves out are not left out of the comparison."""


def has_supported_curve(key: object) -> bool:
    """Return True for an elliptic-curve key, private or public, that model-signing supports."""
    known = (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)
    return isinstance(key, known) and key.curve.name in _CURVES


def sign_files(name: str, files: Mapping[str, str], place: Path, key: Path | None, passphrase: str | None) -> None:
    """Write the signature over files with their digests.

    Args:
        name: the name of the model in the signature.
        files: the SHA-256 of each file.
        place: the file to write.
        key: the file of the private key; None to sign with the identity of this CI job.
        passphrase: the passphrase of the key, None if it has none.
    """
    config = signing.Config().set_hashing_config(_KnownDigests(name, files))
    if key is None:
        config.use_sigstore_signer(use_ambient_credentials=True)
    else:
        # model-signing declares text and passes it on to a function that takes bytes.
        password = None if passphrase is None else cast("str", passphrase.encode())
        config.use_elliptic_key_signer(private_key=key, password=password)
    config.sign(Path(name), place)


def verifier_of_key(key: Path) -> verifying.Config:
    """Return the verifier of signatures by a key, from the file of the public key."""
    return verifying.Config().use_elliptic_key_verifier(public_key=key)


def verifier_of_identity(identity: str, provider: str) -> verifying.Config:
    """Return the verifier of signatures by an identity; it fetches the root of trust of Sigstore."""
    return verifying.Config().use_sigstore_verifier(identity=identity, oidc_issuer=provider)


def verify_files(verifier: verifying.Config, name: str, files: Mapping[str, str], signature: Path) -> None:
    """Check that a signature is valid and covers exactly these files; every kind of exception says that it is not."""
    verifier.set_hashing_config(_KnownDigests(name, files)).verify(Path(name), signature)
