"""Signing of a step that exists: in a repo by a commit that adds the signature, or in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from hubmerge.cards import has_marks
from hubmerge.errors import HubmergeError, TargetError, UsageError
from hubmerge.hub.fetch import resolve_commit
from hubmerge.hub.own_files import signature_of
from hubmerge.hub.permission import check_permission
from hubmerge.hub.signature import publish_signature
from hubmerge.provenance.bundle import is_signed
from hubmerge.provenance.signing import Signer
from hubmerge.report.file_list import list_step_files
from hubmerge.report.report import RunReport
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import CARD_FILE, REPORT_FILE, SIGNATURE_FILE, step_tag
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted, listed
from hubmerge.verify.published import Published, UnreadableReport, read_published
from hubmerge.verify.signature import file_digests

_CLIENT_FOLDERS = (".cache/", ".git/")
"""Folders that `hf download` and git keep beside the files of a model."""


def _published_problem(published: Published, found: dict[str, str]) -> str | None:
    """Return why a published step cannot be signed, None if it can."""
    problem = _problem(published.report, found, published.files.metadata_files[CARD_FILE])
    files = published.files
    if problem is None and SIGNATURE_FILE in files.files and not signature_of(files.repo, files.commit, files.files):
        return f"{SIGNATURE_FILE} is there and is not a signature of this step"
    return problem


def sign_published(repo: str, revision: str | None, signer: Signer, progress: Progress) -> str:
    """Sign the newest step of a repo, and return the commit that adds the signature.

    Args:
        repo: the repo, owner/name.
        revision: a revision that names the newest commit; None for main.
        signer: the signer.
        progress: the receiver of notes.

    Raises:
        UsageError: the revision is not the newest commit, or the key cannot be used.
        TargetError: the files are not those that the report lists, or the repo has another file of that name.
        HubError: the repo cannot be read, or the token may not write.
        MachineError: this machine cannot sign.
    """
    signer.check()
    check_permission(repo, exists=True)
    published = read_published(repo, revision)
    commit = published.files.commit
    place = {"repo": repo, "commit": commit}
    if isinstance(published, UnreadableReport):
        raise TargetError(published.cause, hint=f"hubmerge verify {repo}", file=REPORT_FILE, **place)
    if resolve_commit("model", repo, "main") != commit:
        raise UsageError(
            f"{repo}@{revision} is not the newest commit: a signature is added by a commit on main",
            hint=f"hubmerge sign {repo}",
            **place,
        )
    found = file_digests(published)
    problem = _published_problem(published, found)
    if problem is not None:
        raise TargetError(f"{repo}: {problem}", hint=f"hubmerge verify {repo}", **place)
    tag = step_tag(published.step)
    with tempfile.TemporaryDirectory() as folder:
        signature = Path(folder) / SIGNATURE_FILE
        _sign(published.report, found, f"{repo}@{tag}", signer, signature, progress)
        signed, tagged = publish_signature(repo, signature, step=published.step, parent=commit)
    if not tagged:
        progress.note(f"tag {tag} names an earlier commit with other files, which has no signature")
    return signed


def sign_folder(folder: Path, signer: Signer, progress: Progress) -> Path:
    """Sign the step in a folder, and return the file of the signature.

    Raises:
        UsageError: the folder has no step, its files are not those of the report, or the key cannot be used.
        MachineError: this machine cannot sign.
    """
    signer.check({"the signed folder": folder})
    path = folder / REPORT_FILE
    try:
        report = RunReport.from_json(path.read_text(encoding="utf-8"))
        problem = None if report.steps else f"{REPORT_FILE} contains no step"
    except HubmergeError as error:
        problem = error.message
    except (OSError, UnicodeDecodeError):
        problem = f"there is no {REPORT_FILE}, so this is not a step that hubmerge wrote"
    if problem is None:
        digests = {name: file.sha256 for name, file in list_step_files(folder).items()}
        digests = {name: digest for name, digest in digests.items() if not name.startswith(_CLIENT_FOLDERS)}
        found = {name: digest for name, digest in digests.items() if is_signed(name)}
        found[REPORT_FILE] = file_digest(path)
        card = folder / CARD_FILE
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        problem = _problem(report, found, text)
    if problem is not None:
        raise UsageError(f"{folder}: {problem}", hint="name a folder that `hubmerge run --out` wrote", file=str(path))
    name = f"{folder.resolve().name}@{step_tag(report.steps[-1].step)}"
    signature = folder / SIGNATURE_FILE
    _sign(report, found, name, signer, signature, progress)
    return signature


def _sign(
    report: RunReport, found: Mapping[str, str], name: str, signer: Signer, place: Path, progress: Progress
) -> None:
    files = {path: found[path] for path in _of_step(report, found)}
    others = sorted(set(found) - set(files))
    if others:
        progress.note(f"not signed, because not files of the step: {listed(others)}")
    signer.sign(name, files, place)
    progress.note(f"{name}: {counted(len(files), 'file')} signed")


def _of_step(report: RunReport, found: Iterable[str]) -> list[str]:
    """Return the files of a step; a report of version 1 lists none, so that they are all files there."""
    known = {*report.all_files, *report.history_files, REPORT_FILE}
    return sorted(name for name in found if report.version == 1 or name in known)


def _problem(report: RunReport, found: Mapping[str, str], card: str) -> str | None:
    """Return why a step is not as hubmerge wrote it, None if it is."""
    if report.broken_digest() is not None or report.has_broken_seal:
        return f"{REPORT_FILE} was changed after it was written"
    if report.version > 1 and not report.all_files:
        return f"{REPORT_FILE} lists no files"
    listed_files = {name: file.sha256 for name, file in report.all_files.items()} or report.steps[-1].files
    listed_files |= {name: digest.removeprefix("sha256:") for name, digest in report.history_files.items()}
    for name, digest in sorted(listed_files.items()):
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest and not (name == CARD_FILE and has_marks(card)):
            return f"{name} is not the file that the report lists"
    return None
