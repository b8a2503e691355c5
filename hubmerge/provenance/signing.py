"""Signers of steps, and the keys and identities that a verification trusts. The work is that of model-signing."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubmerge.errors import DISK_FULL, MachineError, UsageError
from hubmerge.provenance.bundle import SignatureError
from hubmerge.support.names import SIGNATURE_FILE

PASSPHRASE_VARIABLE = "HUBMERGE_SIGNING_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Environment variable with the passphrase of an encrypted private key."""

PACKAGES = ("model-signing>=1.1,<2", "pyopenssl>=24")
"""Packages of the extra `sign`."""

MAX_KEY_BYTES = 1 << 16

_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_LABEL = re.compile(rb"\s*-----BEGIN ([A-Z ]{1,40})-----")
_MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


def client() -> Any:
    """Return the module that uses the packages of the extra `sign`.

    Raises:
        MachineError: a package is not installed.
    """
    try:
        from hubmerge.provenance import model_signing_client
    except ImportError as error:
        raise MachineError(
            f"package {error.name or 'model_signing'} is not installed: signatures need the extra `sign`",
            hint=f"pip install {' '.join(repr(package) for package in PACKAGES)}",
        ) from error
    return model_signing_client


@dataclass(frozen=True)
class Signer:
    """A signer of steps.

    Attributes:
        key: File of the private key; None for keyless signing with the identity of a CI job.
    """

    key: Path | None

    def check(self, published: Mapping[str, Path] | None = None) -> None:
        """Check that this machine can sign, before anything is merged.

        Args:
            published: Folders whose files are published or shared, by what they are; the key must be in none of them.

        Raises:
            UsageError: The file is not a key that signs, or is in one of the folders.
            MachineError: A package, the passphrase or the identity is missing.
        """
        packages = client()
        if self.key is None:
            _check_identity(packages)
            return
        _read_private_key(packages, self.key)
        _check_place(self.key, published or {})

    def sign(self, name: str, files: Mapping[str, str], place: Path) -> None:
        """Write the signature over files with their SHA-256.

        Args:
            name: Name of the model in the signature, such as owner/name@step-03.
            files: SHA-256 of each file.
            place: Path of the signature. It appears complete or not at all.

        Raises:
            MachineError: The key cannot be used, or the services of Sigstore do not respond.
        """
        packages = client()
        encrypted = self.key is not None and _read_private_key(packages, self.key)
        passphrase = os.environ.get(PASSPHRASE_VARIABLE) if encrypted else None
        temporary = place.with_name(f".{place.name}.partial")
        try:
            packages.sign_files(name, files, temporary, self.key, passphrase)
            temporary.replace(place)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise
            raise MachineError(
                f"signing {name} failed: {type(error).__name__}: {error}",
                hint="run the same command again to continue",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class TrustedSigner:
    """The key or the identity that signatures must be by; neither if no signature is expected.

    Attributes:
        key: File of a public key.
        identity: Identity in the certificate, such as the address of a workflow.
        provider: Address of the OIDC provider that vouches for the identity.
    """

    key: Path | None = None
    identity: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and (self.identity or self.provider):
            raise UsageError("a signature is by a key or by an identity", hint="drop --key, or drop --identity")
        if (self.identity is None) != (self.provider is None):
            raise UsageError(
                "an identity is checked with its provider",
                hint="add --identity NAME --identity-provider https://token.actions.githubusercontent.com",
            )

    @property
    def is_given(self) -> bool:
        """True if a signature is expected."""
        return self.key is not None or self.identity is not None

    @property
    def label(self) -> str:
        """The key or the identity in messages."""
        return f"the key {self.key}" if self.key is not None else f"{self.identity} ({self.provider})"

    def check(self) -> None:
        """Check that the packages are installed and that the key can be used.

        Raises:
            UsageError: The file is not a public key.
            MachineError: A package is missing.
        """
        if not self.is_given:
            return
        packages = client()
        if self.key is None:
            return
        content = _read(self.key, "public key")
        with _as_key_error(
            self.key, "a public key in PEM", "openssl ec -in key.pem -pubout -out key.pub; add --key key.pub"
        ):
            supported = packages.has_supported_curve(packages.load_pem_public_key(content))
        if not supported:
            raise _unsupported(self.key)

    def check_signature(self, content: bytes, name: str, files: Mapping[str, str]) -> None:
        """Check that a signature is by this key or identity and covers exactly the files.

        Args:
            content: The signature.
            name: Name of the model, for messages.
            files: SHA-256 of each file.

        Raises:
            SignatureError: It is not.
            MachineError: The root of trust of Sigstore cannot be fetched.
        """
        packages = client()
        verifier = self._verifier(packages)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / SIGNATURE_FILE
            place.write_bytes(content)
            try:
                # model-signing prints a warning about signatures of older versions.
                with contextlib.redirect_stdout(io.StringIO()):
                    packages.verify_files(verifier, name, files, place)
            except packages.InvalidSignature as error:
                raise SignatureError(f"it is not a signature by {self.label}") from error
            except Exception as error:
                # Of a key there is nothing to add: that it covers the files was compared before.
                reason = "" if self.key is not None else f": {error}"
                raise SignatureError(f"it is not a signature by {self.label}{reason}") from error

    def _verifier(self, packages: Any) -> Any:
        if self.key is not None:
            return packages.verifier_of_key(self.key)
        try:
            return packages.verifier_of_identity(self.identity or "", self.provider or "")
        except Exception as error:
            raise MachineError(
                f"the root of trust of Sigstore cannot be fetched: {error}", hint="verify again with a network"
            ) from error


def _check_identity(packages: Any) -> None:
    """Check that this job has the OIDC credentials of keyless signing."""
    hint = "give the job `permissions: {id-token: write}`, or sign with a key: `publish: {sign: {key: FILE}}`"
    try:
        found = packages.detect_credential()
    except Exception as error:
        raise MachineError(f"keyless signing: {error}", hint=hint) from error
    if found is None:
        raise MachineError("keyless signing needs the OIDC credentials of a CI job, and there are none here", hint=hint)


def _check_place(key: Path, published: Mapping[str, Path]) -> None:
    for what, folder in published.items():
        if key.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"signing key {key}: it is inside {what}, {folder}, where it would be shared",
                hint=f"mv {key} ~/",
                file=str(key),
            )


def _read_private_key(packages: Any, key: Path) -> bool:
    """Check that a private key can be used, and return True if it is encrypted."""
    content, passphrase = _read(key, "signing key"), os.environ.get(PASSPHRASE_VARIABLE)
    with _as_key_error(key, "an elliptic-curve private key in PEM", _MAKE_KEY):
        try:
            loaded, encrypted = packages.load_pem_private_key(content, None), False
        except TypeError:
            loaded, encrypted = _decrypted(packages, key, content, passphrase), True
    if not packages.has_supported_curve(loaded):
        raise _unsupported(key)
    return encrypted


def _decrypted(packages: Any, key: Path, content: bytes, passphrase: str | None) -> Any:
    if not passphrase:
        raise MachineError(
            f"signing key {key}: it is encrypted, and {PASSPHRASE_VARIABLE} is not set",
            hint=f"read -rs {PASSPHRASE_VARIABLE} && export {PASSPHRASE_VARIABLE}",
            file=str(key),
        )
    try:
        return packages.load_pem_private_key(content, passphrase.encode())
    except ValueError:
        raise MachineError(
            f"signing key {key}: {PASSPHRASE_VARIABLE} is not its passphrase",
            hint=f"read -rs {PASSPHRASE_VARIABLE} && export {PASSPHRASE_VARIABLE}",
            file=str(key),
        ) from None


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES)
    except OSError as error:
        kind = UsageError if error.errno in _NO_FILE else MachineError
        raise kind(
            f"{what} {path}: {error.strerror or error}", hint="name the file of an existing key", file=str(path)
        ) from error


@contextlib.contextmanager
def _as_key_error(key: Path, expected: str, hint: str) -> Iterator[None]:
    """Raise the errors of the cryptography package as one error that shows nothing of the file."""
    try:
        yield
    except MachineError:
        raise
    except Exception:  # the package has errors of its own beside those of Python
        raise UsageError(f"{key}: {_kind(key)}expected {expected}", hint=hint, file=str(key)) from None


def _kind(key: Path) -> str:
    """Return what a file begins with, if that is a key or a certificate."""
    kinds = {"PRIVATE KEY": "a private key", "PUBLIC KEY": "a public key", "CERTIFICATE": "a certificate"}
    label = _LABEL.match(_read(key, "key"))
    found = next((kind for end, kind in kinds.items() if label is not None and label[1].decode().endswith(end)), None)
    return "" if found is None else f"this is {found}, "


def _unsupported(key: Path) -> UsageError:
    return UsageError(f"{key}: expected a key on the curve P-256, P-384 or P-521", hint=_MAKE_KEY, file=str(key))
