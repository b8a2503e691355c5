"""Provenance statement, bill of materials and signature of a merged model, written beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hubmerge.provenance.bom import BomDetails, bom_text
from hubmerge.provenance.bundle import is_signed
from hubmerge.provenance.signing import Signer
from hubmerge.provenance.statement import statement_text
from hubmerge.report.file_list import list_step_files
from hubmerge.report.licenses import License
from hubmerge.report.report import RunReport
from hubmerge.stream.stream import Stream
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import BOM_FILE, REPORT_FILE, SIGNATURE_FILE, STATEMENT_FILE


def write_provenance_files(
    folder: Path, report: RunReport, stream: Stream, merged: License, model_class: str | None
) -> None:
    """Write the bill of materials, then the statement, which covers all files before it.

    Args:
        folder: Folder of the merged model, with all files except the report.
        report: Report of the step.
        stream: The stream.
        merged: License of the merged model.
        model_class: transformers class of the model, None if the config names none.
    """
    publish = stream.recipe.publish
    details = BomDetails(publish.repo if publish is not None else None, merged, model_class)
    (folder / BOM_FILE).write_text(bom_text(report, stream.lock, details), encoding="utf-8", newline="\n")
    listed = replace(report, all_files=list_step_files(folder))
    (folder / STATEMENT_FILE).write_text(
        statement_text(listed, stream.lock, stream.loaded.values), encoding="utf-8", newline="\n"
    )


def sign_folder(folder: Path, name: str, signer: Signer, history: Mapping[str, str]) -> Path:
    """Write the signature over all files of a step into its folder and return its path.

    Args:
        folder: Folder of the merged model, with the report.
        name: Name of the model in the signature.
        signer: The signer.
        history: Digests of the files in `history/`, which are published beside the folder.

    Raises:
        MachineError: The key cannot be used, or the services of Sigstore do not respond.
    """
    files = {path: file.sha256 for path, file in list_step_files(folder).items() if is_signed(path)}
    files[REPORT_FILE] = file_digest(folder / REPORT_FILE)
    files |= {path: digest.removeprefix("sha256:") for path, digest in history.items()}
    signer.sign(name, files, folder / SIGNATURE_FILE)
    return folder / SIGNATURE_FILE
