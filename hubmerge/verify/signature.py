"""Check of the signature over the files of a published step."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.hub.checked_files import is_sha256
from hubmerge.hub.published import read_small_file, step_file
from hubmerge.provenance.bundle import MAX_BYTES, SignatureError, SignedFiles, is_signed, read_bundle
from hubmerge.provenance.signing import TrustedSigner
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import RECIPE_FILE, SIGNATURE_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import kept_files
from hubmerge.verify.published import Published


def check_signature(published: Published, trusted: TrustedSigner) -> Iterator[Finding]:
    """Check that the signature covers the published files, and that it is by a trusted key or identity.

    A step without a signature gives no finding, unless the recipe or the caller expects one.

    Args:
        published: the published step.
        trusted: the key or the identity that is trusted; neither if nobody is.
    """
    if SIGNATURE_FILE not in published.files.files:
        yield from _missing(published, trusted)
        return
    if published.files.sizes[SIGNATURE_FILE] > MAX_BYTES:
        yield _differs(f"it is larger than {MAX_BYTES} bytes")
        return
    content = read_small_file(published.files, SIGNATURE_FILE)
    try:
        signed = read_bundle(content)
    except SignatureError as error:
        yield _differs(str(error))
        return
    found = file_digests(published)
    difference = _difference(signed, found)
    if difference is not None:
        yield _differs(difference)
        return
    folder = published.files.folder
    name = f"{published.repo if folder is None else folder.resolve().name}@{step_tag(published.step)}"
    if not trusted.is_given:
        option = "--identity NAME --identity-provider URL" if signed.keyless else "--key FILE"
        detail = f"{SIGNATURE_FILE} lists the published files; who made it is not checked: add {option}"
        yield Finding("signature", "unknown", detail)
        return
    yield _check_signer(content, name, found, signed, trusted)


def _check_signer(
    content: bytes, name: str, found: dict[str, str], signed: SignedFiles, trusted: TrustedSigner
) -> Finding:
    if signed.keyless != (trusted.key is None):
        made = "with the certificate of an identity" if signed.keyless else "with a key"
        return _differs(f"it was made {made}, not by {trusted.label}")
    try:
        trusted.check_signature(content, name, found)
    except SignatureError as error:
        return _differs(str(error))
    except MachineError as error:
        return Finding("signature", "unknown", error.message)
    other = "" if signed.name == name else f" as {signed.name!r:.200}"
    return Finding("signature", "same", f"{counted(len(found), 'file')} signed by {trusted.label}{other}")


def _missing(published: Published, trusted: TrustedSigner) -> Iterator[Finding]:
    if trusted.is_given:
        yield Finding("signature", "differs", f"{SIGNATURE_FILE} is missing: expected a signature by {trusted.label}")
        return
    try:
        publish = published.recipe().recipe.publish
    except HubmergeError:
        return  # the check of the recipe says so
    if publish is not None and publish.sign is not None:
        yield Finding("signature", "differs", f"{SIGNATURE_FILE} is missing: {RECIPE_FILE} asks for signed steps")


def file_digests(published: Published) -> dict[str, str]:
    """Return the SHA-256 of every file that a signature must cover. The Hub lists it for large files only."""
    release, kept = published.files, kept_files(published)
    return {
        name: digest if is_sha256(digest) else file_digest(step_file(release, name))
        for name, digest in sorted(release.files.items())
        if is_signed(name) and name not in kept
    }


def _difference(signed: SignedFiles, found: dict[str, str]) -> str | None:
    for name in sorted({*signed.files, *found}):
        if name not in found:
            return f"{name} was signed and is missing"
        if name not in signed.files:
            return f"{name} is not signed"
        if signed.files[name] != found[name]:
            return f"{name} is not the file that was signed"
    return None


def _differs(cause: str) -> Finding:
    return Finding("signature", "differs", f"{SIGNATURE_FILE}: {cause}")
