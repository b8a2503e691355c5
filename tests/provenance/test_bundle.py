"""A damaged signature is an ordinary error that names the cause."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from hubmerge.provenance.bundle import SignatureError, read_bundle
from hubmerge.provenance.signing import Signer, TrustedSigner
from tests.provenance.keys import make_key

FILES = {"config.json": "0" * 64, "hubmerge.json": "1" * 64}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, TrustedSigner]:
    folder = tmp_path_factory.mktemp("signed")
    key = make_key(folder)
    Signer(key.private).sign("me/merged@step-01", FILES, folder / "model.sig")
    return (folder / "model.sig").read_bytes(), TrustedSigner(key.public)


def _with_payload(change: Change) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        bundle = json.loads(content)
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        change(payload)
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        return json.dumps(bundle).encode()

    return changed


def _with_bundle(change: Change) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        bundle = json.loads(content)
        change(bundle)
        return json.dumps(bundle).encode()

    return changed


def _flip(bundle: dict[str, Any]) -> None:
    (signature,) = bundle["dsseEnvelope"]["signatures"]
    content = bytearray(base64.b64decode(signature["sig"]))
    content[-1] ^= 1
    signature["sig"] = base64.b64encode(content).decode()


def _certificate(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a flipped bit": (_with_bundle(_flip), "it is not a signature by the key"),
    "another name in the payload": (
        _with_payload(lambda payload: payload["subject"][0].update(name="x")),
        "it is not a signature by the key",
    ),
    "no signatures": (
        _with_bundle(lambda bundle: bundle["dsseEnvelope"].update(signatures=[])),
        "it is not a signature by the key",
    ),
    "another key named": (
        _with_bundle(lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint="0")),
        "it is not a signature by the key",
    ),
    "a certificate": (_with_bundle(_certificate), "it was made with the certificate of an identity"),
    "shards": (
        _with_payload(lambda payload: payload["predicate"]["serialization"].update(method="shards")),
        "it does not list whole files",
    ),
    "another hash": (
        _with_payload(lambda payload: payload["predicate"]["resources"][0].update(algorithm="blake2")),
        "it does not list each file once with its SHA-256",
    ),
    "a file twice": (
        _with_payload(lambda payload: payload["predicate"]["resources"].append(payload["predicate"]["resources"][0])),
        "it does not list each file once with its SHA-256",
    ),
    "another predicate": (
        _with_payload(lambda payload: payload.update(predicateType="https://slsa.dev/provenance/v1")),
        "its predicate is not https://model_signing/signature/v1.0",
    ),
    "no payload": (_with_bundle(lambda bundle: bundle.pop("dsseEnvelope")), "dsseEnvelope is missing"),
    "no base64": (_with_bundle(lambda bundle: bundle["dsseEnvelope"].update(payload="?")), "its payload is not base64"),
    "no JSON": (lambda _: b"\xff", "not UTF-8 text"),
    "deep": (lambda _: b"[" * 5000 + b"]" * 5000, "nested more than 64 deep"),
    "a list": (lambda _: b"[]", "dsseEnvelope is missing"),
    "empty": (lambda _: b"", "not JSON"),
}


def check(content: bytes, trusted: TrustedSigner) -> None:
    if read_bundle(content).keyless:
        raise SignatureError("it was made with the certificate of an identity")
    trusted.check_signature(content, "me/merged@step-01", FILES)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_signature_is_refused(signed: tuple[bytes, TrustedSigner], name: str) -> None:
    content, trusted = signed
    damage, message = DAMAGES[name]
    with pytest.raises(SignatureError) as caught:
        check(damage(content), trusted)
    assert message in str(caught.value)
