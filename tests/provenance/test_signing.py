"""Signers: what is checked before anything is merged, and what a private key never meets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hubmerge.errors import MachineError, UsageError
from hubmerge.provenance.bundle import SignatureError, read_bundle, signs_report
from hubmerge.provenance.signing import PASSPHRASE_VARIABLE, Signer, TrustedSigner
from tests.provenance.keys import make_key

FILES = {"config.json": "0" * 64, "hubmerge.json": "1" * 64, "sub/b.json": "2" * 64}


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_signature_covers_the_given_files(
    passphrase: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, place = make_key(tmp_path, passphrase=passphrase), tmp_path / "model.sig"
    # A passphrase that is set does not disturb a key without one.
    monkeypatch.setenv(PASSPHRASE_VARIABLE, passphrase or "unused")
    signer = Signer(key.private)
    signer.check()
    signer.sign("me/merged@step-03", FILES, place)
    content, trusted = place.read_bytes(), TrustedSigner(key.public)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "key.pub", "model.sig"]
    assert read_bundle(content).files == FILES
    assert not read_bundle(content).keyless
    assert signs_report(content, "1" * 64)
    assert not signs_report(content, "0" * 64)
    trusted.check_signature(content, "me/merged@step-03", FILES)
    for changed in (
        {**FILES, "config.json": "3" * 64},
        {**FILES, "more.json": "3" * 64},
        {name: digest for name, digest in FILES.items() if name != "sub/b.json"},
    ):
        with pytest.raises(SignatureError, match=r"not a signature by the key \S+$"):
            trusted.check_signature(content, "me/merged@step-03", changed)


def test_keys_that_cannot_sign_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    pair, encrypted = make_key(tmp_path), make_key(tmp_path, "encrypted", passphrase="correct horse")
    others: dict[str, Any] = {
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "rsa": rsa.generate_private_key(65537, 2048),
        "secp256k1": ec.generate_private_key(ec.SECP256K1()),
    }
    for name, key in others.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
    (tmp_path / "text.pem").write_text("hf_secretsecretsecretsecret")
    (tmp_path / "binary.pem").write_bytes(b"\x00\xff" * 5000)
    (tmp_path / "begins.pem").write_bytes(pair.private.read_bytes()[:60])
    expected = {
        "none.pem": "No such file or directory",
        ".": "Is a directory",
        "text.pem": "expected an elliptic-curve private key in PEM",
        "binary.pem": "expected an elliptic-curve private key in PEM",
        "begins.pem": "expected an elliptic-curve private key in PEM",
        "key.pub": "this is a public key, expected an elliptic-curve private key in PEM",
        "encrypted.pem": f"it is encrypted, and {PASSPHRASE_VARIABLE} is not set",
        **{f"{name}.pem": "expected a key on the curve P-256, P-384 or P-521" for name in others},
    }
    for name, message in expected.items():
        with pytest.raises((MachineError, UsageError), match=message) as caught:
            Signer(tmp_path / name).check()
        assert caught.value.exit_code == (5 if name == "encrypted.pem" else 2)
        assert caught.value.hint
        assert "hf_secret" not in str(caught.value)
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "another one")
    with pytest.raises(MachineError, match=f"{PASSPHRASE_VARIABLE} is not its passphrase") as caught:
        Signer(encrypted.private).check()
    assert "another one" not in f"{caught.value} {caught.value.hint}"


def test_a_key_in_a_shared_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    pair = make_key(tmp_path / "out" / "sub")
    link = tmp_path / "link.pem"
    link.symlink_to(pair.private)
    for key in (pair.private, link):
        with pytest.raises(UsageError, match="it is inside --out"):
            Signer(key).check({"--out": tmp_path / "out"})
    Signer(pair.private).check({"--out": tmp_path / "other"})


def test_a_missing_package_is_an_ordinary_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_key(tmp_path)
    monkeypatch.delitem(sys.modules, "hubmerge.provenance.model_signing_client", raising=False)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    import hubmerge.provenance

    monkeypatch.delattr(hubmerge.provenance, "model_signing_client", raising=False)
    for check in (Signer(pair.private).check, Signer(None).check, TrustedSigner(pair.public).check):
        with pytest.raises(MachineError, match=r"package model_signing is not installed") as caught:
            check()
        assert caught.value.hint == "pip install 'model-signing>=1.1,<2' 'pyopenssl>=24'"
    TrustedSigner().check()  # nothing is signed, so nothing is needed


def test_keyless_signing_needs_the_credentials_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE", "GOOGLE_SERVICE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MachineError, match="there are none here") as caught:
        Signer(None).check()
    assert caught.value.hint is not None
    assert "id-token: write" in caught.value.hint
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", raising=False)
    with pytest.raises(MachineError, match="keyless signing: GitHub: missing or insufficient OIDC token permissions"):
        Signer(None).check()


def test_who_is_trusted_is_one_key_or_one_identity() -> None:
    for arguments in ({"identity": "a"}, {"provider": "a"}, {"key": Path("a"), "identity": "a", "provider": "b"}):
        with pytest.raises(UsageError):
            TrustedSigner(**arguments)
