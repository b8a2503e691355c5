"""Files of the target repo that are not hubmerge's: found before anything is merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hubmerge.cards import has_marks
from hubmerge.cards.data import front_matter
from hubmerge.cards.merge_cards import BEGIN, END, replaced_edits
from hubmerge.checkpoints.formats.layout import CONFIG_FILE, find_weights
from hubmerge.checkpoints.weight_names import is_index
from hubmerge.errors import TargetError
from hubmerge.hub.fetch import read_checked
from hubmerge.hub.own_files import own_files
from hubmerge.hub.publish import Target
from hubmerge.stream.sources import files_of
from hubmerge.stream.stream import Stream
from hubmerge.support.names import (
    CARD_FILE,
    GIT_ATTRIBUTES,
    NOTICE_FILE,
    SIGNATURE_FILE,
    STEP_FILES,
    head_files,
    history_file,
    step_tag,
)
from hubmerge.support.text import listed

_NOT_COPIED = (".safetensors", ".bin", ".pth")


@dataclass(frozen=True)
class TargetFiles:
    """Files of the target repo that a run may replace, and the parts of the card that it keeps.

    Attributes:
        own: the files at the head that are as hubmerge published them.
        card: the card at the head if people may have written in it, None otherwise.
        writes_notice: False if the repo has a file NOTICE of other people, which stays.
        others: the files of other people at the head with their digests, as the Hub lists them.
        notes: sentences for the user: what people changed in the card and the next step replaces.
    """

    own: frozenset[str] = frozenset()
    card: str | None = None
    writes_notice: bool = True
    others: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_target_files(stream: Stream) -> TargetFiles:
    """Check that the next step replaces no file of other people in the target repo.

    Raises:
        TargetError: a file with a name that the step writes is not as hubmerge published it.
    """
    target = stream.target
    if target is None or target.head is None:
        return TargetFiles()
    own = own_files(target)
    written = {*STEP_FILES, CONFIG_FILE}
    if stream.recipe.publish is not None and stream.recipe.publish.sign is not None:
        written.add(SIGNATURE_FILE)
    present = {stream.base.name_of(file) for file in files_of(stream.base, auxiliary=True)}
    written |= {name for name in present if not (name.endswith(_NOT_COPIED) or is_index(name))} - {CARD_FILE}
    written |= {name for entry in stream.entries for name in head_files(entry.name)}
    published = len(target.report.get("steps", ())) if target.report is not None else 0
    written |= {history_file(step) for step in range(published + 1, stream.length + 1)}
    weights = find_weights(present, stream.base.origin).names
    in_the_way = sorted(
        path
        for path in target.files - own - {CARD_FILE}
        if path in written or any(names.is_written(path) for names in (weights, weights.of_variant(None)))
    )
    if in_the_way:
        raise TargetError(
            f"target repo {target.repo} has files that hubmerge did not publish: {listed(in_the_way)}; the next step "
            "would replace them",
            hint="rename or delete these files there, or write another repo under publish.repo",
            repo=target.repo,
            commit=target.head,
            file=in_the_way[0],
        )
    others = target.files - own - {CARD_FILE, GIT_ATTRIBUTES}
    digests = {path: target.digests[path] for path in sorted(others)}
    card = _kept_card(stream, own)
    return TargetFiles(own, card, NOTICE_FILE not in others, digests, tuple(_replaced_edits(stream, target)))


def _replaced_edits(stream: Stream, target: Target) -> Iterator[str]:
    """Yield one sentence if people changed what hubmerge writes in the card. The card at the tag decides."""
    steps = target.report.get("steps", ()) if target.report is not None else ()
    commit = target.tags.get(step_tag(len(steps))) if steps else None
    if commit is None or commit == target.head or target.card is None or not has_marks(target.card):
        return
    published = read_checked(target.repo, commit, CARD_FILE)
    if published is None:
        return
    publish = stream.recipe.publish
    sets_license = publish is not None and publish.license is not None
    edits = replaced_edits(published.decode("utf-8", errors="replace"), target.card, sets_license=sets_license)
    if edits:
        yield (
            f"{CARD_FILE} of {target.repo} was changed where hubmerge writes; the next step replaces "
            f"{listed(edits)}. Text above and below the two comments is kept"
        )


def _kept_card(stream: Stream, own: frozenset[str]) -> str | None:
    target = stream.target
    if target is None or target.card is None:
        return None
    if CARD_FILE in own and not has_marks(target.card):
        return None
    if target.card.startswith("---\n") and not front_matter(target.card):
        raise TargetError(
            f"{CARD_FILE} of target repo {target.repo}: the metadata between the lines of dashes cannot be read",
            hint=f"correct the YAML at the top of {CARD_FILE}, or remove it",
            repo=target.repo,
            commit=target.head,
            file=CARD_FILE,
        )
    if target.report is None or has_marks(target.card):
        return target.card
    raise TargetError(
        f"{CARD_FILE} of target repo {target.repo} was changed, and the lines around the generated part are missing",
        hint=f"add the line `{BEGIN}` before the generated part and the line `{END}` after it, or restore {CARD_FILE} "
        "from the history of the repo",
        repo=target.repo,
        commit=target.head,
        file=CARD_FILE,
    )
