"""Published steps: verify one, roll back to one, load its heads, find what changed on the Hub since then."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.api.places import place_of, repo_of
from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.errors import UsageError
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.text import in_shell

if TYPE_CHECKING:
    from hubmerge.api.merging import StepRun
    from hubmerge.automation.outdated import Changes
    from hubmerge.provenance.signing import TrustedSigner
    from hubmerge.verify import Verdict
    from merge_recipes import LoadedRecipe


def verify(
    published: str,
    *,
    quick: bool = False,
    from_parts: bool = False,
    key: str | os.PathLike[str] | None = None,
    identity: str | None = None,
    identity_provider: str | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> Verdict:
    """Check a published step: its files, digests, lock and card, then merge all steps again and compare everything.

    Args:
        published: the repo, with the step as revision unless it is the newest: `owner/name@step-03`; or the folder of
            a step, such as `run(out=...)` wrote.
        quick: check signature, statement, files, digests, chain, lock and card only; nothing is merged.
        from_parts: add the states of a combined stream's parts, and merge nothing: it is then "partly verified".
        key: the file of the public key that the signature must be by.
        identity: the identity that a keyless signature must be by, such as the address of a GitHub workflow.
        identity_provider: the address of the OIDC provider that vouches for the identity.
        work_dir: folder for states and caches, each time a new one in it; in the user's cache folder by default.
        progress: see `hubmerge.run`; an object also receives each finding as soon as it is known.

    Returns:
        The verdict: `.verified` (True if all was checked and nothing differs), `.differences`, `.unknown`, `.findings`.

    Raises:
        HubError: the repo cannot be read, or holds no published step.
        MachineError: the packages of the extra `sign` are not installed.
        UsageError: the key cannot be used, or `from_parts` has no effect on this stream.
    """
    from hubmerge.verify import verify_step

    _check_usage(quick=quick, from_parts=from_parts)
    place, revision = place_of(published)
    signer = _trusted_signer(key, identity, identity_provider)
    reports, folder = open_progress(progress), _work_folder(work_dir) / "verify"
    with interrupts.handled():
        return verify_step(place, revision, folder, reports, recompute=not quick, from_parts=from_parts, trusted=signer)


def _check_usage(*, quick: bool, from_parts: bool) -> None:
    if quick and from_parts:
        message = "--from-parts has no effect with --quick, which merges nothing"
        raise UsageError(message, hint="remove --quick, or remove --from-parts")


def _trusted_signer(
    key: str | os.PathLike[str] | None, identity: str | None, identity_provider: str | None
) -> TrustedSigner:
    from hubmerge.provenance.signing import TrustedSigner

    return TrustedSigner(None if key is None else Path(key), identity, identity_provider)


def sign(
    published: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    keyless: bool = False,
    progress: ProgressOption = "auto",
) -> str:
    """Sign a step that exists: the newest one of a repo, by a commit that adds `model.sig`, or the one in a folder.

    Verify a step before you sign it: the signature says that its files are those that you mean.

    Args:
        published: the repo, `owner/name`, or a folder that `run(out=...)` wrote.
        key: the file of an elliptic-curve private key; its passphrase is in HUBMERGE_SIGNING_PASSPHRASE.
        keyless: sign with the identity of the CI job that this process runs in.
        progress: see `hubmerge.run`.

    Returns:
        The commit that adds the signature, or the path of the signature in the folder.

    Raises:
        HubError: the repo cannot be read or written, or its files are not those of the step.
        MachineError: the packages of the extra `sign` are not installed, or the passphrase is missing.
        UsageError: the key or the folder cannot be used, or neither or both of `key` and `keyless` are given.
    """
    from hubmerge.provenance.signing import Signer
    from hubmerge.verify.sign_step import sign_folder, sign_published

    if (key is None) != keyless:
        command = f"hubmerge sign {in_shell(published)}"
        raise UsageError(
            "a step is signed with a key or with an identity",
            hint=f"`{command} --key FILE`, or in CI `{command} --keyless`",
        )
    signer, reports = Signer(None if key is None else Path(key)), open_progress(progress)
    with interrupts.handled():
        place, revision = place_of(os.fspath(published))
        if isinstance(place, Path):
            return str(sign_folder(place, signer, reports))
        return sign_published(place, revision, signer, reports)


def rollback(repo: str, step: int) -> str:
    """Restore the files of an earlier step on the main branch of a repo, and delete the tags of later steps.

    The commits of later steps stay in the history of the repo.

    Args:
        repo: the repo that a recipe publishes to.
        step: number of the step, from 1.

    Returns:
        The commit that restores the step.

    Raises:
        HubError: the repo has no tag for the step, or the token may not write.
        UsageError: a folder or a step was named in place of the repo.
    """
    from hubmerge.cards import restored_card
    from hubmerge.hub.rollback import roll_back

    with interrupts.handled():
        return roll_back(repo_of(repo, "rolling back"), step, restored_card)


def revoke(
    repo: str,
    entries: Sequence[str],
    *,
    only: bool = False,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> StepRun:
    """Publish a step in which entries of a stream were never merged, from its state and their checkpoints alone.

    The recipe in the repo gets an entry `{model: ..., revoke: NAME}` for each. Add them to your own copy of the recipe
    too. Nothing happens before the first step is asked for, as with `hubmerge.run`.

    Newer commits of the entries, which `on_update` merged as `NAME-2`, are taken out with them, and a note names them.

    Args:
        repo: the published repo.
        entries: names of the entries to take out.
        only: take out the named entries alone, and leave newer commits of them in the merge.
        work_dir: folder for states and caches; in the user's cache folder by default.
        progress: see `hubmerge.run`.

    Raises:
        HubError: the repo cannot be read, or has no such entry.
        UsageError: the entry is taken out already, no entry would be left, or the method cannot take entries out.

    Example:
        hubmerge.revoke("me/merged", ["cats"]).finish()
    """
    from hubmerge.api.merging import StepRun
    from hubmerge.stream.revocation import revoking_recipe
    from hubmerge.verify.published import open_published

    published = open_published(repo_of(repo, "taking an entry out"), None)
    found = revoking_recipe(published.recipe(), published.lock(), entries, repo, only=only)
    reports = open_progress(progress)
    if found.newer:
        reports.note(f"note: newer commits are taken out too: {', '.join(found.newer)} (to keep them, add --only)")
    return StepRun(found.keys, work_dir=work_dir, progress=reports)


def _work_folder(work_dir: str | os.PathLike[str] | None) -> Path:
    return user_cache_folder("runs") if work_dir is None else Path(work_dir)


def outdated(recipe: RecipeLike, *, progress: ProgressOption = "auto") -> Changes:
    """Find what changed on the Hub since the steps of a recipe were published, or since its lock was written.

    Args:
        recipe: the path of a YAML file, a dict with the keys of a recipe, or a loaded recipe.
        progress: see `hubmerge.run`.

    Returns:
        The changes, empty if there is none; `str()` of them is a table.

    Raises:
        RecipeError: the recipe has problems.
        HubError: the Hub does not answer, or the target repo holds another stream.
    """
    from hubmerge.automation.outdated import find_changes

    reports = open_progress(progress)
    loaded = load(recipe, progress=reports)
    with interrupts.handled(), reports.stage("check the Hub"):
        return find_changes(loaded)


def call_for_run(recipe: LoadedRecipe, changes: Changes) -> bool:
    """Return True if the next run has something to do, or if this machine reports one of the changes the first time.

    Args:
        recipe: the recipe.
        changes: what `outdated` returned for it.
    """
    from hubmerge.automation.outdated import call_for_run as call

    return call(recipe, changes)


def load_head(model: str | os.PathLike[str], entry: str, *, revision: str | None = None) -> Any:
    """Load a merged model with the head of one of its checkpoints, for the task that the checkpoint was trained for.

    Args:
        model: a repo that a recipe publishes to, or the folder of a merged model.
        entry: the name of the checkpoint's entry in the recipe.
        revision: a branch, tag or commit of the repo, such as `step-03`; None for main.

    Returns:
        A model of transformers or timm, in evaluation mode.

    Raises:
        CheckpointError: the model has no head of this name, or its files are damaged.
        HubError: the repo cannot be read, or holds no published step.

    Example:
        model = hubmerge.load_head("owner/merged", "sst2")
    """
    from hubmerge.evaluation.task_heads import load_with_head
    from hubmerge.hub.published import download_published_step, read_published_step

    folder = Path(model)
    if not folder.is_dir():
        folder = download_published_step(read_published_step(str(model), revision))
    return load_with_head(folder, entry)
