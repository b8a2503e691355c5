"""Licenses of the inputs of a stream, read from their cards at the locked commits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.errors import HubError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile, download_checked, find_file
from hubmerge.report.inputs import TOKENIZER, tokenizer_input
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.support.front_matter import MAX_CARD_BYTES, read_front_matter
from hubmerge.support.names import CARD_FILE
from merge_recipes.references import is_local_path

BASE_MODEL = "base model"
"""Name of the base model among the inputs."""

_ADAPTER = "adapter of "

CARDS_AT_ONCE = 8
"""Number of cards that are read at the same time."""

MAX_LICENSE_FILES = 8
_LICENSE_FILE = re.compile(r"(LICEN[CS]E|NOTICE|COPYING)([-._][A-Za-z0-9._-]{1,40})?", re.IGNORECASE)


@dataclass(frozen=True)
class InputLicense:
    """One input of a merge with its license.

    Attributes:
        name: "base model", the name of an entry, "adapter of NAME" or "tokenizer of NAME".
        step: Number of the entry, which is that of its step in a stream of folds; 0 for the base model, -1 for a model
            of a stage and for one that only lends its tokenizer.
        source: The model or the adapter, at its locked commit.
        license: Its license; without identifiers if its card states none.
        revoked: True if a later entry takes the input out of the merge, or if it is such an entry.
    """

    name: str
    step: int
    source: Source
    license: License = NO_LICENSE
    revoked: bool = False

    @property
    def entry(self) -> str:
        """Name of the entry, or "base model"."""
        return self.name.removeprefix(_ADAPTER)

    @property
    def model(self) -> str:
        """Repo or local folder, as the recipe names it."""
        reference = self.source.reference
        return "/".join(filter(None, (reference.written_path or reference.path, self.source.subfolder)))


def read_licenses(stream: Stream, recorded: RunReport | None = None) -> tuple[InputLicense, ...]:
    """Return the licenses of the base model, of every checkpoint and of every adapter, in the order of the entries.

    Models of stages, and models that only lend their tokenizers, come last.

    Models that `recorded` has with their licenses keep them. Cards of earlier models that can no longer be read count
    as unknown.

    Args:
        stream: The stream.
        recorded: Report of finished steps.

    Raises:
        HubError: The card of the base model or of a missing step cannot be read.
    """
    known = _recorded(recorded)

    def read(one: InputLicense) -> License:
        commit = stream.lock.models[one.step - 1].commit if one.step > 0 else ""
        commit = one.source.commit if one.step < 0 else commit
        earlier = known.get((one.entry, commit))
        place = 1 if one.name.startswith(_ADAPTER) else 0
        if earlier is not None and place < len(earlier):
            return earlier[place]
        try:
            return read_license(one.source)
        except HubError:
            merged = recorded is not None and recorded.steps and TOKENIZER in one.name
            if not merged and (earlier is None or one.step < 1):
                raise
            return NO_LICENSE

    inputs = list(_inputs(stream))
    with ThreadPoolExecutor(CARDS_AT_ONCE) as pool:
        licenses = list(pool.map(read, inputs))
    return tuple(replace(one, license=stated) for one, stated in zip(inputs, licenses, strict=True))


def _recorded(report: RunReport | None) -> dict[tuple[str, str], tuple[License, ...]]:
    """Return the licenses in a report by name and commit of the model; those of the base model by its name."""
    if report is None:
        return {}
    inputs = (*report.models, *tokenizer_input(report.tokenizer))
    models = {(model.name, model.commit): model.licenses for model in inputs}
    for stage in report.stages:
        models[f"{BASE_MODEL} of {stage.name}", stage.base_model.commit] = stage.base_model.licenses
        inner = (*stage.models, *tokenizer_input(stage.tokenizer))
        models |= {(f"{model.name} of {stage.name}", model.commit): model.licenses for model in inner}
    return {(BASE_MODEL, ""): report.base_model.licenses, **models}


def _inputs(stream: Stream) -> Iterator[InputLicense]:
    """Yield the inputs without their licenses."""
    yield InputLicense(BASE_MODEL, 0, replace(stream.base, adapter=None, base=None))
    if stream.base.adapter is not None:
        yield InputLicense(f"{_ADAPTER}{BASE_MODEL}", 0, stream.base.adapter)
    revoked = {entry.revoke for entry in stream.entries}
    for number, entry in enumerate(stream.entries, start=1):
        source = stream.source(number)
        taken_out = entry.revoke is not None or entry.name in revoked
        yield InputLicense(entry.name, number, replace(source, adapter=None, base=None), revoked=taken_out)
        if source.adapter is not None:
            yield InputLicense(f"{_ADAPTER}{entry.name}", number, source.adapter, revoked=taken_out)
    if stream.lock.tokenizer is not None:
        tokenizer = stream.placed(Source.of(stream.lock.tokenizer))
        yield InputLicense(f"{TOKENIZER}{stream.lock.tokenizer.name}", -1, replace(tokenizer, adapter=None, base=None))
    for stage in stream.stages:
        for one in _inputs(stream.of_stage(stage)):
            yield replace(one, name=f"{one.name} of {stage.name}", step=-1)


def read_license(source: Source) -> License:
    """Return the license in the card of a model or an adapter.

    The card in the folder of the model decides, and without a license there, the card at the top of the repo.

    Raises:
        HubError: The repo cannot be read.
    """
    if source.is_local:
        return _read_local(Path(source.reference.path))
    repo, commit = source.reference.path, source.commit
    for folder in dict.fromkeys((source.subfolder, "")):
        listed = fetch.list_files(repo, commit, folder)
        files = {file.path.removeprefix(f"{folder}/" if folder else ""): file for file in listed}
        stated = License.of(read_front_matter(_read_card(repo, commit, files)), _license_files(files))
        if stated.identifiers:
            break
    return stated


def read_dataset_license(dataset: str, commit: str) -> License:
    """Return the license in the card of a data set. Files with license texts are not looked for.

    Args:
        dataset: Repo, owner/name, or a local folder.
        commit: Commit of the repo.

    Raises:
        HubError: The repo cannot be read.
    """
    if is_local_path(dataset):
        return replace(_read_local(Path(dataset)), files=())
    card = find_file(dataset, commit, CARD_FILE, "dataset")
    if card is None or card.size > MAX_CARD_BYTES:
        return NO_LICENSE
    content = download_checked(dataset, commit, card, kind="dataset").read_bytes()
    return License.of(read_front_matter(content))


def has_card(source: Source) -> bool:
    """Return True if the repo of an input has a card, as far as this machine knows."""
    files = fetch.list_files(source.reference.path, source.commit)
    return any(file.path in {CARD_FILE, f"{source.subfolder}/{CARD_FILE}"} for file in files)


def read_text(source: Source, name: str, most: int) -> str | None:
    """Return the text of a license file of an input, None if it is larger than `most` bytes.

    Args:
        source: The model or the adapter.
        name: One of `License.files`.
        most: Largest size in bytes.

    Raises:
        HubError: The file cannot be read.
    """
    if source.is_local:
        path = Path(source.reference.path) / name
        content = path.read_bytes() if path.is_file() and path.stat().st_size <= most else None
    else:
        repo, commit = source.reference.path, source.commit
        places = (f"{source.subfolder}/{name}" if source.subfolder else name, name)
        files = {file.path: file for file in fetch.list_files(repo, commit)}
        file = next((files[place] for place in places if place in files), None)
        content = fetch.read_file(repo, commit, file) if file is not None and file.size <= most else None
    return None if content is None else content.decode("utf-8", errors="replace")


def _read_card(repo: str, commit: str, files: dict[str, RemoteFile]) -> bytes:
    card = files.get(CARD_FILE)
    return b"" if card is None or card.size > MAX_CARD_BYTES else fetch.read_file(repo, commit, card)


def _read_local(folder: Path) -> License:
    names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    card = folder / CARD_FILE
    content = card.read_bytes() if card.is_file() and card.stat().st_size <= MAX_CARD_BYTES else b""
    return License.of(read_front_matter(content), _license_files(names))


def _license_files(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if _LICENSE_FILE.fullmatch(name))[:MAX_LICENSE_FILES])
