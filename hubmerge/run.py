"""One run of a recipe: the missing steps, one after another, each merged, checked, scored, published and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge import assembly
from hubmerge.checkpoints import Checkpoint, align, check_ties, open_checkpoint, weight_matrices
from hubmerge.errors import MachineError, TargetError
from hubmerge.executor import StepFigures, merge_step, pick_device, write_merged
from hubmerge.executor.writing import MAX_SHARD_BYTES
from hubmerge.hub import fetch, publish, states
from hubmerge.measures import measures, warnings
from hubmerge.methods import method_named
from hubmerge.opening import open_source
from hubmerge.planning import RunPlan, check_room, input_dtype, preflight, selection_of
from hubmerge.progress import Advance, Progress
from hubmerge.report import ModelReport, RunReport, Scores, StepReport
from hubmerge.sources import fetch_folder, file_digest
from hubmerge.state import MergeState, find_state
from hubmerge.stream import Stream, settle
from hubmerge.workspace import Workspace, open_workspace, workspace_name
from merge_recipes import LoadedRecipe, TensorParameters

if TYPE_CHECKING:
    from hubmerge.scoring import Scoreboard

FIGURES_FILE = "figures.json"
LIBRARIES = ("hubmerge", "torch", "transformers", "huggingface_hub", "safetensors")


class Run:
    """A run that is ready to work: everything locked, and what is already done known. Use `Run.open`."""

    def __init__(self, stream: Stream, workspace: Workspace, cache: Path, progress: Progress) -> None:
        self.stream = stream
        self.recipe = stream.recipe
        self.workspace = workspace
        self.progress = progress
        self._cache = cache
        self._published = stream.published_report()
        self.report = self._recorded_report()
        target = stream.target
        self._head = target.head if target is not None else None
        self._present = target.files if target is not None else frozenset()

    @classmethod
    @contextmanager
    def open(cls, loaded: LoadedRecipe, work_dir: Path, progress: Progress, *, locked: bool = False) -> Iterator[Run]:
        """Lock the recipe's references and find out what is done; the work folder is this run's until the end.

        With `locked`, every commit is taken from the lock beside the recipe.

        Raises:
            HubmergeError: a source, the target or the work folder cannot be used.
        """
        target = loaded.recipe.publish
        label = target.repo if target is not None else loaded.path.stem
        identity = f"{fetch.endpoint()} {target.repo}" if target is not None else str(loaded.path.absolute())
        with open_workspace(work_dir, workspace_name(identity, label)) as workspace:
            with progress.stage("resolve commits"):
                stream = settle(loaded, workspace, locked=locked)
            yield cls(stream, workspace, work_dir / "cache", progress)

    def steps(self) -> Iterator[StepReport]:
        """Do the steps that are missing, in order, and yield each one's report when it is finished."""
        self._mend_tags()
        first = self.first_step
        if first > self.stream.length:
            return
        if self.recipe.publish is not None:
            publish.check_token(self.recipe.publish.repo)
        state = self._newest_state(first)
        begin = first if state is None else state.step if state.step == first else state.step + 1
        begin = begin if state is not None else 1
        plan = preflight(self.stream, begin, self.progress)
        check_room(plan, self.workspace.folder, fetch.cache_folder())
        with self.progress.stage("fetch the base model", unit="bytes"):
            base_folder = fetch_folder(self.stream.base, companions=True)
        yield from self._work(plan, base_folder, state, begin, first)

    @property
    def first_step(self) -> int:
        """The first step that is not finished: merged, scored, and published where the recipe asks for it."""
        published = len(self._published.steps) if self._published is not None else 0
        recorded = len(self.report.steps)
        return next(
            (
                step
                for step in range(1, self.stream.length + 1)
                if step > (published if self._is_published(step) else max(published, recorded))
            ),
            self.stream.length + 1,
        )

    def write_out(self, out: Path) -> None:
        """Leave the last merged model in `out`, as an ordinary transformers folder.

        Raises:
            MachineError: the folder holds something else, or cannot be written.
        """
        if out.exists() and any(out.iterdir()) and not (out / publish.REPORT_FILE).is_file():
            raise MachineError(f"--out {out}: the folder holds something else", hint="name a new or empty folder")
        folder = self.workspace.step_folder(self.stream.length)
        if not folder.is_dir():
            if self.stream.target is None or self.stream.target.head is None:
                raise MachineError(f"{folder}: the merged model is not there any more", hint="use a new --work-dir")
            folder = publish.download_head(self.stream.target)
        partial = out.with_name(f".{out.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder, partial)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
        self.progress.note(f"the merged model lies in {out}")

    def addresses(self) -> list[str]:
        """Return the web addresses of the published steps."""
        if self.recipe.publish is None:
            return []
        repo = self.recipe.publish.repo
        return [publish.address(repo, step.step) for step in self.report.steps if self._is_published(step.step)]

    def _work(
        self, plan: RunPlan, base_folder: Path, state: MergeState | None, begin: int, first: int
    ) -> Iterator[StepReport]:
        from hubmerge.scoring import Scoreboard  # its libraries take seconds to import, and only work needs them

        method = method_named(self.recipe.merge_method)
        device = pick_device()
        base = open_checkpoint(base_folder, self.stream.base.label)
        check_ties(base, plan.merge)
        rule = weight_matrices(base.config, base.tensors)
        scores = Scoreboard(self.stream, base_folder, self._cache, str(device), self.progress)
        with ThreadPoolExecutor(1, thread_name_prefix="fetch") as fetcher:
            coming: Future[Checkpoint] = fetcher.submit(open_source, self.stream.source(begin))
            for step in range(begin, self.stream.length + 1):
                name = self.stream.entries[step - 1].name
                with self.progress.stage(f"step {step}: fetch {name}"):
                    checkpoint = coming.result()
                if step < self.stream.length:
                    coming = fetcher.submit(open_source, self.stream.source(step + 1))
                if state is None or state.step < step:
                    aligned = align(base, checkpoint, selection=selection_of(self.recipe), ties=rule.ties)
                    check_ties(aligned, plan.merge)
                    with self.progress.stage(f"step {step}: merge {name}", len(plan.merge.merged)) as advance:
                        state, figures = merge_step(
                            base,
                            aligned,
                            state,
                            method,
                            TensorParameters(method.Parameters, self.recipe, self.stream.entries[step - 1]),
                            plan.merge,
                            self.workspace.state_folder(self.stream.chain[step]),
                            chain=self.stream.chain[step],
                            input_dtype=input_dtype(self.recipe),
                            device=device,
                            on_tensor=_count(advance),
                        )
                    self.workspace.write_text(state.folder / FIGURES_FILE, figures.to_json())
                    for warning in warnings(figures, [entry.name for entry in self.stream.entries]):
                        self.progress.note(f"warning: step {step}: {warning}")
                if step >= first:
                    yield self._finish(step, plan, base, base_folder, state, checkpoint, scores)
                keep = {self.stream.chain[step], self.stream.chain[step - 1]}
                self.workspace.forget_states(keep if step < self.stream.length else {self.stream.chain[step]})
                checkpoint.close()

    def _finish(
        self,
        step: int,
        plan: RunPlan,
        base: Checkpoint,
        base_folder: Path,
        state: MergeState,
        checkpoint: Checkpoint,
        scores: Scoreboard,
    ) -> StepReport:
        """From the state of a step to its finished folder, scores, publication and record."""
        folder = self.workspace.step_folder(step)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with self.progress.stage(f"step {step}: write the merged model", len(plan.written.tensors)) as advance:
            written = write_merged(
                base,
                state,
                plan.written,
                partial,
                max_shard_bytes=self._max_shard_bytes,
                input_dtype=input_dtype(self.recipe),
                on_tensor=_count(advance),
            )
        assembly.copy_companions(base_folder, partial)
        assembly.write_config(plan.config, partial, out_dtype=self.recipe.out_dtype or self.recipe.dtype)
        assembly.check_loads(partial)
        with open_checkpoint(partial, f"the merged model of step {step}") as merged:
            step_scores = scores.score(step, merged)
        report = self._with_references(step, checkpoint, scores)
        done = replace(self._step_report(step, state, step_scores, partial), rounding=written.rounding)
        report = replace(report.with_step(done), tasks=scores.task_reports()).until(step)
        assembly.write_papers(partial, report, self.stream, base_folder)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        if self._is_published(step):
            self._publish(step, folder, state)
        self.report = report
        self.workspace.write_text(self.workspace.report_file, report.to_json())
        for earlier in range(1, step):
            shutil.rmtree(self.workspace.step_folder(earlier), ignore_errors=True)
        return done

    def _with_references(self, step: int, checkpoint: Checkpoint, scores: Scoreboard) -> RunReport:
        """The report with the scores of the base model and of the step's own checkpoint."""
        base_scores = {**self.report.base_scores, **scores.score_base(step, self.report.base_scores)}
        own_scores = {**self.report.own_scores, **scores.score_own(step, checkpoint)}
        return replace(self.report, base_scores=base_scores, own_scores=own_scores)

    def _step_report(self, step: int, state: MergeState, scores: Scores, folder: Path) -> StepReport:
        locked = self.stream.lock.models[step - 1]
        figures = StepFigures.from_json((state.folder / FIGURES_FILE).read_text(encoding="utf-8"))
        return StepReport(
            step=step,
            name=locked.name,
            reference=str(locked.reference),
            commit=locked.commit,
            **measures(figures, [entry.name for entry in self.stream.entries]),
            scores=scores,
            chain_digest=self.stream.chain[step],
            files={path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))},
            state_digest=state.digest,
        )

    def _recorded_report(self) -> RunReport:
        """The longest report of this very stream that the target or the work folder holds, or an empty one."""
        recipe = self.recipe
        fresh = RunReport(
            base_model=ModelReport(str(self.stream.base.reference), self.stream.base.commit),
            merge_method=recipe.merge_method,
            recipe_digest=self.stream.lock.recipe,
            parameters=dict(recipe.parameters),
            versions={name: version(name) for name in LIBRARIES},
        )
        known = [report for report in (self._published, self._local_report()) if report is not None]
        longest = max(known, key=lambda report: len(report.steps), default=fresh)
        return replace(longest, recipe_digest=fresh.recipe_digest, versions=fresh.versions)

    def _local_report(self) -> RunReport | None:
        """What the work folder says is finished, as far as it is of this stream."""
        if not self.workspace.report_file.is_file():
            return None
        report = RunReport.from_json(self.workspace.report_file.read_text(encoding="utf-8"))
        same = 0
        for step in report.steps[: self.stream.length]:
            if step.chain_digest != self.stream.chain[step.step]:
                break
            same = step.step
        return report.until(same) if same else None

    def _newest_state(self, first: int) -> MergeState | None:
        """The state to go on from: that of the first missing step if it is whole, else the newest before it."""
        for step in range(min(first, self.stream.length), 0, -1):
            folder = self.workspace.state_folder(self.stream.chain[step])
            if (folder / FIGURES_FILE).is_file() or self._fetch_state(step, folder):
                return find_state(folder)
        return None

    def _fetch_state(self, step: int, folder: Path) -> bool:
        """Get the state of a published step from the Hub, checked against the step's report; False if it is gone."""
        steps = {report.step: report for report in self._published.steps} if self._published is not None else {}
        digest = steps[step].state_digest if step in steps else None
        if self.recipe.publish is None or digest is None:
            return False
        with self.progress.stage(f"fetch the state of step {step}"):
            if not states.fetch_state(self.recipe.publish.repo, digest, folder):
                return False
            state = find_state(folder)
            if state is None or state.digest != digest or state.manifest.chain != self.stream.chain[step]:
                raise TargetError(
                    f"the state of step {step} in {self.recipe.publish.repo} is not the one its report names",
                    hint=f"somebody changed the branch {states.STATE_BRANCH}: delete it there to recompute the stream",
                )
            state.verify()
        return True

    def _is_published(self, step: int) -> bool:
        """Whether the recipe wants this step on the Hub."""
        wanted = self.recipe.publish
        return wanted is not None and (wanted.steps == "every" or step == self.stream.length)

    @property
    def _max_shard_bytes(self) -> int:
        return self.recipe.publish.max_shard_bytes if self.recipe.publish is not None else MAX_SHARD_BYTES

    def _publish(self, step: int, folder: Path, state: MergeState) -> None:
        """Upload the state, then commit and tag the step, then forget the states that nothing rests on any more."""
        wanted, target = self.recipe.publish, self.stream.target
        if wanted is None or target is None:
            return
        with self.progress.stage(f"step {step}: publish to {wanted.repo}"):
            if self._head is None:
                self._head = publish.create_target(wanted.repo, private=wanted.private)
            rests_on = self._push_states(step, folder, state)
            name = self.stream.entries[step - 1].name
            self._head = publish.publish_step(
                wanted.repo, folder, step=step, name=name, parent=self._head, present=self._present
            )
            publish.tag_step(wanted.repo, step, self._head)
            if wanted.state == "last":
                states.keep_states(wanted.repo, rests_on)
        self._present = frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def _push_states(self, step: int, folder: Path, state: MergeState) -> set[str]:
        """Upload the state after the step, and the one before it, which verifying the step starts from."""
        wanted = self.recipe.publish
        if wanted is None or wanted.state == "none":
            return set()
        report = RunReport.from_json((folder / publish.REPORT_FILE).read_text(encoding="utf-8"))
        digests = {report.step: report.state_digest for report in report.steps[-2:] if report.state_digest}
        before = self.workspace.state_folder(self.stream.chain[step - 1])
        for number, state_folder in ((step - 1, before), (step, state.folder)):
            if number in digests and state_folder.is_dir():
                states.push_state(wanted.repo, state_folder, digests[number])
        return set(digests.values())

    def _mend_tags(self) -> None:
        """Set the tags of published steps that a run was interrupted before setting."""
        target = self.stream.target
        if target is None or self._published is None:
            return
        lacking = [
            step.step
            for step in self._published.steps
            if self._is_published(step.step) and publish.step_tag(step.step) not in target.tags
        ]
        if lacking:
            commits = publish.step_commits(target.repo)
            for step in lacking:
                if step in commits:
                    publish.tag_step(target.repo, step, commits[step])
                    self.progress.note(f"set the missing tag {publish.step_tag(step)}")


def _count(advance: Advance) -> Callable[[object], None]:
    """Tell a stage that one more tensor is done."""
    return lambda tensor: advance(1)
