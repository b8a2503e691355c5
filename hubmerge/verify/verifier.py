"""Verifying a published step: first its papers against each other, then the step made again and compared.

A step is made again from the published state of the step before it: OPCM multiplies a rounding difference by about
five at every step, so a chain made again from the sources alone would prove nothing after a dozen of them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import Checkpoint, open_checkpoint
from hubmerge.errors import HubError, HubmergeError
from hubmerge.executor.state import MergeState, find_state
from hubmerge.hub import states
from hubmerge.hub.published import (
    PublishedStep,
    download_published_step,
    published_tags,
    read_published_step,
)
from hubmerge.plan.run_plan import plan_steps
from hubmerge.report.report import RunReport
from hubmerge.run.step_maker import StepMaker
from hubmerge.stream.expansion import expand
from hubmerge.stream.open_source import open_source
from hubmerge.stream.sources import fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.support.names import CARD_FILE, LOCK_FILE, PICTURE_FILE, RECIPE_FILE, REPORT_FILE, step_tag
from hubmerge.support.progress import Progress
from hubmerge.verify.card import compare_card
from hubmerge.verify.finding import Finding
from merge_recipes import LoadedRecipe, Lock, RecipeError, chain_digests, parse_recipe, recipe_digest

TOLERANCE = 1e-6
"""How far a step made again may be from the published one, relative to the merged delta: other machines round
differently, by about 1e-12 a step."""


class Verifier:
    """Verifies one published step; `work` is a folder of its own, emptied before and after."""

    def __init__(self, repo: str, revision: str | None, work: Path, progress: Progress) -> None:
        self._work = work
        self._progress = progress
        self.release: PublishedStep = read_published_step(repo, revision)
        self.report = RunReport.from_json(self.release.metadata_files[REPORT_FILE])
        if not self.report.steps:
            raise HubError(f"{repo}: its {REPORT_FILE} holds no step", hint="name a repo that hubmerge published to")
        self.step = self.report.steps[-1].step
        self.recomputed = False  # whether the step was made again

    def quick(self) -> Iterator[Finding]:
        """Check digests, chain, lock and card without computing anything anew."""
        yield self._seals()
        yield from self._inputs()
        yield self._weight_files()
        yield from self._card()
        yield from self._earlier_steps()
        yield from self._states()

    def full(self) -> Iterator[Finding]:
        """Everything of `quick`, then the step made again and every file compared."""
        found = list(self.quick())
        yield from found
        stream = self._stream()
        if stream is None or any(finding.verdict == "differs" and finding.subject == "chain" for finding in found):
            return
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        try:
            yield from self._made_again(stream)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    def _seals(self) -> Finding:
        broken = self.report.broken_seal()
        if broken is not None:
            return Finding("report", "differs", f"the report of {step_tag(broken)} is not what was sealed")
        return Finding("report", "same", f"the digests of {self.step} step(s) form a chain")

    def _inputs(self) -> Iterator[Finding]:
        try:
            recipe = self._recipe().recipe
            lock = self._lock()
        except RecipeError as error:
            yield Finding("recipe", "differs", str(error))
            return
        if recipe_digest(recipe) != self.report.recipe_digest:
            yield Finding("recipe", "differs", f"{RECIPE_FILE} is not the recipe that the report names")
        if lock.recipe != self.report.recipe_digest:
            yield Finding("lock", "differs", f"{LOCK_FILE} was made from another recipe than the report names")
        stream = self._stream()
        if stream is None:
            yield Finding("chain", "differs", f"{LOCK_FILE} does not hold the stream of {RECIPE_FILE}")
            return
        for step in self.report.steps:
            locked = stream.lock.models[step.step - 1] if step.step <= stream.length else None
            entry = None if locked is None else (locked.name, str(locked.reference), locked.commit)
            if entry != (step.name, step.reference, step.commit):
                yield Finding("lock", "differs", f"{LOCK_FILE} has another entry for step {step.step} than the report")
            if step.step < len(stream.chain) and step.chain_digest != stream.chain[step.step]:
                yield Finding(
                    "chain", "differs", f"recipe and lock do not lead to the chain digest of step {step.step}"
                )
                return
        base = stream.lock.base_model
        if (str(base.reference), base.commit) != (self.report.base_model.reference, self.report.base_model.commit):
            yield Finding("lock", "differs", f"{LOCK_FILE} has another base model than the report")
        yield from self._datasets(stream)
        yield Finding("chain", "same", "recipe and lock lead to every step's chain digest")

    def _datasets(self, stream: Stream) -> Iterator[Finding]:
        scored = {task.name: task.commit for task in self.report.tasks}
        for task in stream.recipe.evaluate.tasks if stream.recipe.evaluate is not None else ():
            data = task.dataset
            try:
                locked = stream.lock.dataset_commit(data.written_path, data.name, data.revision)
            except RecipeError:
                locked = None
            if locked != scored[task.name]:
                yield Finding(
                    "lock", "differs", f"{LOCK_FILE} has another commit for the dataset of {task.name} than the report"
                )

    def _weight_files(self) -> Finding:
        wanted = self.report.steps[-1].files
        found = {name: digest for name, digest in self.release.files.items() if name.endswith(".safetensors")}
        for name in sorted({*wanted, *found}):
            if wanted.get(name) != found.get(name):
                return Finding("weights", "differs", f"{name} is not the file that the report names")
        return Finding("weights", "same", f"{len(wanted)} file(s) with the digests of the report")

    def _card(self) -> Iterator[Finding]:
        stream = self._stream()
        if stream is None:
            yield Finding("card", "unknown", "cannot be compared: the recipe or the lock does not match the report")
        else:
            yield from compare_card(self.release, self.report, stream)

    def _earlier_steps(self) -> Iterator[Finding]:
        """The reports that earlier tags carry must be the beginning of this one."""
        tags = {step: commit for step, commit in published_tags(self.release.repo).items() if step < self.step}
        for step in tags:
            try:
                earlier = RunReport.from_json(
                    read_published_step(self.release.repo, step_tag(step)).metadata_files[REPORT_FILE]
                )
            except HubmergeError as error:
                yield Finding("history", "differs", f"{step_tag(step)}: {error.message}")
                continue
            if [one.digest for one in earlier.steps] != [one.digest for one in self.report.steps[: len(earlier.steps)]]:
                yield Finding("history", "differs", f"the report at {step_tag(step)} is not the beginning of this one")
                return
            other = _other_score(earlier, self.report)
            if other is not None:
                yield Finding("history", "differs", f"the report at {step_tag(step)} has another value for {other}")
                return
        yield Finding("history", "same", f"{len(tags)} earlier tag(s) tell the same story")

    def _states(self) -> Iterator[Finding]:
        for number in (self.step - 1, self.step):
            digest = self.report.steps[number - 1].state_digest if number else None
            if not number or digest is None:
                continue
            found = states.manifest_digest(self.release.repo, digest)
            if found is None:
                yield Finding("state", "unknown", f"the state after step {number} is not published (any more)")
            elif found != digest:
                yield Finding("state", "differs", f"the state after step {number} is not the one the report names")
            else:
                yield Finding("state", "same", f"the state after step {number} has the digest of the report")

    def _made_again(self, stream: Stream) -> Iterator[Finding]:
        step, repo = self.step, self.release.repo
        previous: MergeState | None = None
        if step > 1:
            digest = self.report.steps[step - 2].state_digest
            folder = self._work / "previous"
            if digest is None or not states.fetch_state(repo, digest, folder):
                yield Finding(
                    "recomputation",
                    "unknown",
                    f"the state after step {step - 1} is not published, so step {step} cannot be made again; "
                    "digests, chain and card are all that can be shown (publish: {state: every} keeps every state)",
                )
                return
            try:
                previous = find_state(folder)
                if previous is None or previous.digest != digest:
                    yield Finding("state", "differs", f"the state after step {step - 1} is not the one it should be")
                    return
                previous.verify()
            except HubmergeError as error:
                yield Finding("state", "differs", f"the state after step {step - 1}: {error.message}")
                return
        # Without the base model's scores, so that all of them are made again.
        so_far = replace(self.report.until(step - 1), base_scores={})
        plan = plan_steps(stream, step, self._progress)
        base_folder = fetch_folder(stream.base, auxiliary=True)
        maker = StepMaker(stream, plan, base_folder, self._work / "cache", self._progress)
        checkpoint = open_source(plan.sources[step].source)
        state = maker.merge(range(step, step + 1), [checkpoint], previous, self._work / "state")
        report = maker.finish(step, state, checkpoint, so_far, self._work / "step")
        self.recomputed = True
        yield from self._values_of_the_state()
        yield from self._compared(self._work / "step", report, maker.base)

    def _values_of_the_state(self) -> Iterator[Finding]:
        """The state after this step, which the next one will start from: every tensor against its checksum."""
        digest, folder = self.report.steps[-1].state_digest, self._work / "published"
        if digest is None or not states.fetch_state(self.release.repo, digest, folder):
            return  # `_states` has told of it
        try:
            state = find_state(folder)
            if state is not None:
                state.verify()
        except HubmergeError as error:
            yield Finding("state", "differs", f"the state after step {self.step}: {error.message}")
            return
        yield Finding("state", "same", f"the state after step {self.step}: every tensor has its checksum")

    def _compared(self, made: Path, report: RunReport, base: Checkpoint) -> Iterator[Finding]:
        published = download_published_step(self.release)
        names = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
        names -= {RECIPE_FILE, LOCK_FILE, REPORT_FILE}
        weights = {name for name in names if name.endswith(".safetensors") and "/" not in name}
        if all(_same_bytes(made / name, published / name) for name in weights):
            yield Finding("weights", "same", "made again: the same bytes")
        else:
            yield _compare_tensors(open_checkpoint(made, "made again"), open_checkpoint(published, "published"), base)
        yield from _compare_values(self.report, report)
        for name in sorted(names - weights - {CARD_FILE, PICTURE_FILE}):
            if not _same_bytes(made / name, published / name):
                yield Finding("files", "differs", f"{name} is not the base model's")

    def _recipe(self) -> LoadedRecipe:
        return parse_recipe(self.release.metadata_files[RECIPE_FILE], path=f"{self.release.repo}/{RECIPE_FILE}")

    def _lock(self) -> Lock:
        return Lock.from_yaml(self.release.metadata_files[LOCK_FILE], file=f"{self.release.repo}/{LOCK_FILE}")

    def _stream(self) -> Stream | None:
        """The stream up to this step, out of the published recipe and lock alone."""
        try:
            loaded, lock = self._recipe(), self._lock()
        except RecipeError:
            return None
        entries = expand(loaded.recipe, lock.models, len(lock.models), lambda _: (), None).entries
        if [entry.name for entry in entries] != [model.name for model in lock.models]:
            return None
        recipe = loaded.recipe.with_stream(entries[: self.step])
        if recipe.evaluate is not None:
            scored = {task.name for task in self.report.tasks}
            tasks = tuple(task for task in recipe.evaluate.tasks if task.name in scored)
            recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"tasks": tasks})})
        settled = replace(loaded, recipe=recipe)
        lock = lock.model_copy(update={"models": lock.models[: self.step]})
        return Stream(settled, lock, chain_digests(settled.recipe, lock), None)


def _same_bytes(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def _compare_tensors(made: Checkpoint, published: Checkpoint, base: Checkpoint) -> Finding:
    """Compare tensor by tensor; differences are relative to the merged delta over all tensors."""
    squares, deltas, worst, worst_name = [], [], 0.0, ""
    for name in sorted({*made.tensors, *published.tensors}):
        if name not in made.tensors or name not in published.tensors:
            return Finding("weights", "differs", f"tensor {name!r} is in one of the two models only")
        ours, theirs = made.read(name).double(), published.read(name).double()
        if ours.shape != theirs.shape:
            return Finding("weights", "differs", f"tensor {name!r} has another shape")
        difference = float((ours - theirs).norm())
        squares.append(difference**2)
        deltas.append(float((ours - base.read(name).double()).norm()) ** 2 if name in base.tensors else 0.0)
        if difference > worst or not math.isfinite(difference):
            worst, worst_name = difference, name
    delta = math.sqrt(math.fsum(deltas))
    relative = math.sqrt(math.fsum(squares)) / delta if delta else math.inf
    if relative <= TOLERANCE:
        return Finding("weights", "same", f"made again: the largest difference is {relative:.1e} of the merged delta")
    return Finding(
        "weights", "differs", f"made again: {relative:.1e} of the merged delta apart, most of all {worst_name!r}"
    )


def _other_score(earlier: RunReport, report: RunReport) -> str | None:
    """The first score of the base model or of a checkpoint alone that both reports have and that differs."""
    for kind in ("base_scores", "own_scores"):
        before, now = getattr(earlier, kind), getattr(report, kind)
        for task in sorted(set(before) & set(now)):
            if before[task] != now[task]:
                return f"{kind}.{task}"
    return None


IGNORED = ("digest", "state_digest", "files", "versions", "seconds")


def _compare_values(published: RunReport, made: RunReport) -> Iterator[Finding]:
    """Compare scores and figures; digests differ wherever bytes do and are not looked at again."""
    differing = list(_differences(published.to_dict(), made.to_dict(), ""))
    scores = [path for path in differing if "scores" in path]
    figures = [path for path in differing if "scores" not in path]
    counted = sum(len(values) for values in made.steps[-1].scores.values())
    yield Finding(
        "scores",
        "differs" if scores else "same",
        f"{scores[0]} differs" if scores else f"made again: {counted} score(s) are the same",
    )
    yield Finding(
        "figures",
        "differs" if figures else "same",
        f"{figures[0]} differs" if figures else "made again: norms, scale and ranks are the same",
    )


def _differences(one: Any, other: Any, path: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other} - set(IGNORED)):
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for index, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            yield from _differences(ours, theirs, f"{path}[{index}]")
    elif isinstance(one, float) and isinstance(other, float):
        if not math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9):
            yield path
    elif one != other:
        yield path
