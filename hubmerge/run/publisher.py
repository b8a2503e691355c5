"""Publication of steps on the target repo: states, commits, tags, and what another writer did meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hubmerge.cards import restored_card
from hubmerge.errors import CheckpointError, TargetMovedError
from hubmerge.executor.state import MergeState
from hubmerge.hub import publish, states
from hubmerge.hub.rollback import roll_back
from hubmerge.hub.step_commits import step_commits
from hubmerge.provenance.signing import Signer
from hubmerge.report.report import RunReport
from hubmerge.run.kept_states import check_state, kept_state, report_damage, write_digests
from hubmerge.run.provenance_files import sign_folder
from hubmerge.stream.step_history import history_path
from hubmerge.stream.stream import Stream
from hubmerge.support.files import folder_bytes, remove_folder
from hubmerge.support.names import STATE_BRANCH, history_file, parse_step_tag, step_tag
from hubmerge.support.progress import Progress, counting
from hubmerge.support.stages import BYTES
from hubmerge.support.workspace import Workspace


@dataclass
class Publisher:
    """The target repo of a stream, followed from commit to commit. It does nothing if the recipe publishes nothing.

    Attributes:
        stream: The stream.
        workspace: Work folder with the states.
        progress: Receiver of stages and notes.
        published: Report at the head of the target repo, None if there is none.
        own: Files at the head that are as hubmerge published them, and that the next step replaces.
        signer: Signer of the steps, None if the recipe asks for no signatures.
    """

    stream: Stream
    workspace: Workspace
    progress: Progress
    published: RunReport | None = field(init=False)

    def __post_init__(self) -> None:
        target = self.stream.target
        self.published = self.stream.published_report()
        self._head = target.head if target is not None else None
        self.own: frozenset[str] = frozenset()
        self.signer: Signer | None = None
        files = target.files if target is not None else frozenset()
        steps = range(1, self.published_steps + 1)
        self._history = next((step - 1 for step in steps if history_file(step) not in files), self.published_steps)
        self._tags = dict(target.tags) if target is not None else {}
        self._damaged_states: set[str] = set()

    @property
    def published_steps(self) -> int:
        """Number of steps of this stream in the target repo."""
        return len(self.published.steps) if self.published is not None else 0

    def publish(self, step: int, folder: Path, state: MergeState | None, report: RunReport) -> None:
        """Upload the state, commit and tag the step, then remove published states that are no longer needed.

        Args:
            step: The step.
            folder: Folder of the merged model.
            state: State after the step, None for a joint step.
            report: Report up to the step.

        Raises:
            TargetMovedError: Another writer committed to the target repo.
            MachineError: The step cannot be signed.
        """
        target = self.stream.recipe.publish
        if target is None or not self.stream.publishes(step):
            return
        size = folder_bytes(folder)
        size += 0 if state is None or target.state == "none" else folder_bytes(state.folder)
        with self.progress.stage(f"step {step}: publish to {target.repo}", size, BYTES) as advance, counting(advance):
            if self._head is None:
                self._create(target.repo, private=target.private)
            needed = self._push_states(step, state, report)
            name = self.stream.step_name(step)
            if self.signer is not None:
                sign_folder(folder, f"{target.repo}@{step_tag(step)}", self.signer, report.history_files)
            self._head = publish.publish_step(
                target.repo,
                folder,
                step=step,
                name=name,
                parent=self._head,
                present=self.own,
                history=self._new_history(step),
            )
            self.own = frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            self._history = step
            self._tag(step)
            if target.state == "last":
                states.prune_states(target.repo, needed)

    def roll_back_other_steps(self) -> bool:
        """Roll back published steps that do not match the recipe, if the run replays; return True if there were any.

        The steps stay in the history of the repo. Only its newest commit and its tags change.
        """
        target = self.stream.target
        if target is None or target.report is None or not self.stream.replay:
            return False
        kept = self.published_steps
        outdated = [tag for tag in self._tags if (number := parse_step_tag(tag)) is not None and number > kept]
        if len(target.report.get("steps", ())) <= kept and not outdated:
            return False
        self.progress.note(f"rolling back {target.repo} to step {kept}: later steps do not match the recipe")
        if step_tag(kept) in self._tags:
            roll_back(target.repo, kept, restored_card)
        else:
            for tag in outdated:
                publish.delete_tag(target.repo, tag)
        return True

    def set_missing_tags(self) -> None:
        """Set the tags of published steps that an interrupted run did not set."""
        target = self.stream.target
        if target is None:
            return
        combined = self.published.combined_steps[:-1] if self.published is not None else ()
        missing = [
            step
            for step in range(1, self.published_steps + 1)
            if self.stream.publishes(step) and step_tag(step) not in self._tags and step not in combined
        ]
        digests = [report.digest for report in self.published.steps] if self.published is not None else []
        commits = step_commits(target.repo, missing, digests) if missing else {}
        for step in missing:
            if step in commits:
                publish.tag_step(target.repo, step, commits[step])
                self.progress.note(f"tag {step_tag(step)} was missing in {target.repo}: set")

    def fetch_state(self, step: int, folder: Path) -> bool:
        """Download the state of a published step and check it.

        Returns:
            False if the state is not published, or damaged: one line then says so.

        Raises:
            HubError: The Hub refuses or does not respond.
        """
        target = self.stream.recipe.publish
        steps = {report.step: report for report in self.published.steps} if self.published is not None else {}
        digest = steps[step].state_digest if step in steps else None
        if target is None or digest is None:
            return False
        with self.progress.stage(f"fetch the state of step {step}", unit=BYTES) as advance, counting(advance):
            try:
                if not states.fetch_state(target.repo, digest, folder):
                    return False
                state = check_state(folder)
                problem = None if self._fits(state, step, digest) else "it does not match the digest in the report"
            except CheckpointError as error:
                problem = error.message
            if problem is None:
                write_digests(folder)
                return True
            remove_folder(folder)
            self._damaged_states.add(digest)
            report_damage(f"the state of step {step} on branch {STATE_BRANCH} of {target.repo}", problem)
            return False

    def _fits(self, state: MergeState, step: int, digest: str) -> bool:
        return state.digest == digest and state.manifest.chain == self.stream.chain[step]

    def _create(self, repo: str, *, private: bool) -> None:
        """Create the target repo."""
        self._head = publish.create_target(repo, private=private)
        if publish.read_target(repo).report is not None:
            raise TargetMovedError(
                f"another run published to {repo}, which did not exist when this run began",
                hint="run the recipe again to continue from what is published now",
                repo=repo,
            )

    def _new_history(self, step: int) -> dict[str, Path]:
        """Return the whole reports of the steps that the target repo does not have."""
        steps = range(self._history + 1, step + 1)
        return {history_file(one): history_path(self.workspace.history, one) for one in steps}

    def _push_states(self, step: int, state: MergeState | None, report: RunReport) -> set[str]:
        """Upload the state after a step and the state before it, which verification needs; return their digests."""
        target = self.stream.recipe.publish
        if state is None or target is None or target.state == "none":
            return set()
        digests = {report.step: report.state_digest for report in report.steps[-2:] if report.state_digest}
        before = self.workspace.state_folder(self.stream.chain[step - 1])
        for number, state_folder in ((step - 1, before), (step, state.folder)):
            if number in digests:
                self._push_state(target.repo, number, state_folder, digests[number])
        return set(digests.values())

    def _push_state(self, repo: str, step: int, folder: Path, digest: str) -> None:
        """Upload the state in a folder of the work folder, unless it is published or damaged."""
        damaged = digest in self._damaged_states
        if states.is_published(repo, digest) and not damaged:
            return
        kept = kept_state(folder, self.stream.chain[step])
        if kept is not None and kept.digest == digest:
            states.publish_state(repo, folder, digest, replace=damaged)

    def _tag(self, step: int) -> None:
        """Tag the newest commit. A tag left from a step that was rolled back by hand is moved."""
        target, tag = self.stream.recipe.publish, step_tag(step)
        if target is None or self._head is None:
            return
        if tag in self._tags and step > self.published_steps:
            publish.delete_tag(target.repo, tag)
        publish.tag_step(target.repo, step, self._head)
