"""Releasing finished steps on the target repo: state, commit and tag, and what to do when the target moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hubmerge.errors import TargetError, TargetMovedError
from hubmerge.executor.state import MergeState, find_state
from hubmerge.hub import publish, states
from hubmerge.hub.published import roll_back
from hubmerge.report.report import RunReport
from hubmerge.stream.stream import Stream
from hubmerge.support.names import REPORT_FILE, STATE_BRANCH, parse_step_tag, step_tag
from hubmerge.support.progress import Progress
from hubmerge.support.workspace import Workspace


@dataclass
class Publisher:
    """The target repo of a stream, followed from commit to commit. Does nothing where nothing is to be published."""

    stream: Stream
    workspace: Workspace
    progress: Progress
    published: RunReport | None = field(init=False)

    def __post_init__(self) -> None:
        target = self.stream.target
        self.published = self.stream.published_report()
        self._head = target.head if target is not None else None
        self._present = target.files if target is not None else frozenset()
        self._tags = dict(target.tags) if target is not None else {}

    @property
    def published_steps(self) -> int:
        """How many steps of this stream the target holds."""
        return len(self.published.steps) if self.published is not None else 0

    def release(self, step: int, folder: Path, state: MergeState) -> None:
        """Upload the state, then commit and tag the step, then forget the states that nothing rests on any more.

        Raises:
            TargetMovedError: somebody else committed to the target meanwhile.
        """
        wanted = self.stream.recipe.publish
        if wanted is None or not self.stream.publishes(step):
            return
        with self.progress.stage(f"step {step}: publish to {wanted.repo}"):
            if self._head is None:
                self._head = publish.create_target(wanted.repo, private=wanted.private)
                if publish.read_target(wanted.repo).report is not None:
                    raise TargetMovedError(
                        f"target repo {wanted.repo} came into being while step {step} was being made",
                        hint="another run published there; run again to continue from what is there now",
                    )
            rests_on = self._push_states(step, folder, state)
            name = self.stream.entries[step - 1].name
            self._head = publish.publish_step(
                wanted.repo, folder, step=step, name=name, parent=self._head, present=self._present
            )
            self._present = frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
            self._tag(step)
            if wanted.state == "last":
                states.prune_states(wanted.repo, rests_on)

    def undo_other_steps(self) -> bool:
        """Take back published steps that are not this stream's, where `replay` asks for it; True if there were any.

        They stay in the history of the repo; only its newest commit and the tags change.
        """
        target = self.stream.target
        if target is None or target.report is None or not self.stream.replay:
            return False
        kept = self.published_steps
        outdated = [tag for tag in self._tags if (number := parse_step_tag(tag)) is not None and number > kept]
        if len(target.report.get("steps", ())) <= kept and not outdated:
            return False
        self.progress.note(f"taking back the steps after step {kept} of {target.repo}: the recipe has other ones")
        if step_tag(kept) in self._tags:
            roll_back(target.repo, kept)
        else:
            for tag in outdated:
                publish.delete_tag(target.repo, tag)
        return True

    def mend_tags(self) -> None:
        """Set the tags of published steps that a run was interrupted before setting."""
        target = self.stream.target
        if target is None:
            return
        lacking = [
            step
            for step in range(1, self.published_steps + 1)
            if self.stream.publishes(step) and step_tag(step) not in self._tags
        ]
        if lacking:
            commits = publish.step_commits(target.repo)
            for step in lacking:
                if step in commits:
                    publish.tag_step(target.repo, step, commits[step])
                    self.progress.note(f"set the missing tag {step_tag(step)}")

    def fetch_state(self, step: int, folder: Path) -> bool:
        """Get the state of a published step, checked against the step's report; False if it is not there.

        Raises:
            TargetError: the state on the Hub is not the one that the report names.
        """
        wanted = self.stream.recipe.publish
        steps = {report.step: report for report in self.published.steps} if self.published is not None else {}
        digest = steps[step].state_digest if step in steps else None
        if wanted is None or digest is None:
            return False
        with self.progress.stage(f"fetch the state of step {step}"):
            if not states.fetch_state(wanted.repo, digest, folder):
                return False
            state = find_state(folder)
            if state is None or state.digest != digest or state.manifest.chain != self.stream.chain[step]:
                raise TargetError(
                    f"the state of step {step} in {wanted.repo} is not the one its report names",
                    hint=f"somebody changed the branch {STATE_BRANCH}: delete it there to recompute the stream",
                )
            state.verify()
        return True

    def _push_states(self, step: int, folder: Path, state: MergeState) -> set[str]:
        """Upload the state after the step, and the one before it, which verifying the step starts from."""
        wanted = self.stream.recipe.publish
        if wanted is None or wanted.state == "none":
            return set()
        report = RunReport.from_json((folder / REPORT_FILE).read_text(encoding="utf-8"))
        digests = {report.step: report.state_digest for report in report.steps[-2:] if report.state_digest}
        before = self.workspace.state_folder(self.stream.chain[step - 1])
        for number, state_folder in ((step - 1, before), (step, state.folder)):
            if number in digests and state_folder.is_dir():
                states.publish_state(wanted.repo, state_folder, digests[number])
        return set(digests.values())

    def _tag(self, step: int) -> None:
        """Tag the commit just made. A tag left over from a step that was rolled back by hand is moved."""
        wanted, tag = self.stream.recipe.publish, step_tag(step)
        if wanted is None or self._head is None:
            return
        if tag in self._tags and step > self.published_steps:
            publish.delete_tag(wanted.repo, tag)
        publish.tag_step(wanted.repo, step, self._head)
