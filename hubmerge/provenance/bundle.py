"""Reader of signatures: a Sigstore bundle whose envelope lists the files of a model with their digests.

The reader says what a signature covers. Whether it was made by a key or an identity is checked in `signing`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.support.names import REPORT_FILE, SIGNATURE_FILE
from hubmerge.support.strict_json import StrictJSONError, read_strict_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

MAX_BYTES = 1 << 24
"""Largest size of a signature, a statement or a bill of materials that is read."""

_GIT_FILES = frozenset({".gitattributes", ".gitignore"})
_GIT_FOLDERS = (".git/", ".github/")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SignatureError(ValueError):
    """Error for a signature that is not valid; the message is the cause."""


@dataclass(frozen=True)
class SignedFiles:
    """What a signature covers.

    Attributes:
        files: SHA-256 of each file, by path.
        keyless: True if it was made with a certificate for an identity, False if with a key.
        name: Name of the model that the signer gave.
    """

    files: Mapping[str, str]
    keyless: bool
    name: str


def is_signed(name: str) -> bool:
    """Return True for a file of a step that a signature must cover: all but the signature and the files of git.

    >>> is_signed("config.json"), is_signed("model.sig"), is_signed(".gitattributes"), is_signed("sub/.gitattributes")
    (True, False, False, True)
    """
    return name != SIGNATURE_FILE and name not in _GIT_FILES and not name.startswith(_GIT_FOLDERS)


def read_bundle(content: bytes) -> SignedFiles:
    """Return what a signature covers.

    Raises:
        SignatureError: the content is not a signature, or lists something else than files with their SHA-256.
    """
    try:
        bundle = read_strict_json(content)
        envelope = _mapping(bundle, "dsseEnvelope")
        if envelope.get("payloadType") != PAYLOAD_TYPE:
            raise SignatureError(f"its payload is not of the type {PAYLOAD_TYPE}")
        payload = read_strict_json(base64.b64decode(_text(envelope, "payload"), validate=True))
    except StrictJSONError as error:
        raise SignatureError(str(error)) from error
    except ValueError as error:
        raise error if isinstance(error, SignatureError) else SignatureError("its payload is not base64") from error
    if _text(payload, "predicateType") != PREDICATE_TYPE:
        raise SignatureError(f"its predicate is not {PREDICATE_TYPE}")
    predicate = _mapping(payload, "predicate")
    if _mapping(predicate, "serialization").get("method") != "files":
        raise SignatureError("it does not list whole files")
    resources = predicate.get("resources")
    files: dict[str, str] = {}
    for resource in resources if isinstance(resources, list) else ():
        name, digest = _text(resource, "name"), _text(resource, "digest")
        if resource.get("algorithm") != "sha256" or _SHA256.fullmatch(digest) is None or name in files:
            raise SignatureError("it does not list each file once with its SHA-256")
        files[name] = digest
    subjects = payload.get("subject")
    name = _text(subjects[0], "name") if isinstance(subjects, list) and len(subjects) == 1 else ""
    return SignedFiles(files, "publicKey" not in _mapping(bundle, "verificationMaterial"), name)


def signs_report(content: bytes, report_sha256: str) -> bool:
    """Return True if a signature covers a report with a SHA-256, so that it belongs to this step and no other."""
    try:
        return read_bundle(content).files.get(REPORT_FILE) == report_sha256
    except SignatureError:
        return False


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(found, Mapping):
        raise SignatureError(f"{key} is missing")
    return found


def _text(value: Any, key: str) -> str:
    found = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(found, str):
        raise SignatureError(f"{key} is missing")
    return found
