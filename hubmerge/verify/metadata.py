"""Checks of report, recipe, lock and file digests against each other, without the weights."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from hubmerge.errors import HubmergeError
from hubmerge.hub.published import published_tags, read_published_step
from hubmerge.report.report import RunReport
from hubmerge.stream.stream import Stream
from hubmerge.support.names import LOCK_FILE, RECIPE_FILE, REPORT_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from merge_recipes import RecipeError, recipe_digest


def check_digests(published: Published) -> Finding:
    """Check the digest of every step in the report."""
    broken = published.report.broken_digest()
    if broken is not None:
        return Finding("report", "differs", f"the digest of {step_tag(broken)} does not match its content")
    if published.report.has_broken_seal:
        return Finding("report", "differs", f"the seal of {REPORT_FILE} does not match its content")
    return Finding("report", "same", f"the digests of {counted(published.step, 'step')} form a chain")


def check_recipe_and_lock(published: Published) -> Iterator[Finding]:
    """Check that recipe and lock lead to what the report says."""
    try:
        recipe, lock = published.recipe().recipe, published.lock()
    except RecipeError as error:
        yield Finding("recipe", "differs", str(error))
        return
    if recipe_digest(recipe) != published.report.recipe_digest:
        yield Finding("recipe", "differs", f"{RECIPE_FILE} does not match the recipe digest in the report")
    if lock.recipe != published.report.recipe_digest:
        yield Finding("lock", "differs", f"{LOCK_FILE} belongs to another recipe than the report")
    if published.stream is None:
        yield Finding("chain", "differs", f"{LOCK_FILE} does not list the checkpoints of {RECIPE_FILE}")
        return
    broken = yield from _check_steps(published, published.stream)
    if not broken:
        yield from _check_base_and_datasets(published, published.stream)
        yield Finding("chain", "same", "the chain digest of every step follows from recipe and lock")


def _check_steps(published: Published, stream: Stream) -> Generator[Finding, None, bool]:
    """Check entries and chain digests; return True if a chain digest differs."""
    for step in published.report.steps:
        locked = stream.lock.models[step.step - 1] if step.step <= stream.length else None
        entry = None if locked is None else (locked.name, str(locked.reference), locked.commit)
        if entry != (step.name, step.reference, step.commit):
            yield Finding("lock", "differs", f"step {step.step} in {LOCK_FILE} is not the checkpoint in the report")
        if step.step < len(stream.chain) and step.chain_digest != stream.chain[step.step]:
            detail = f"the chain digest of step {step.step} does not follow from recipe and lock"
            yield Finding("chain", "differs", detail)
            return True
    return False


def _check_base_and_datasets(published: Published, stream: Stream) -> Iterator[Finding]:
    base, reported = stream.lock.base_model, published.report.base_model
    if (str(base.reference), base.commit) != (reported.reference, reported.commit):
        yield Finding("lock", "differs", f"the base model in {LOCK_FILE} is not the one in the report")
    scored = {task.name: task.commit for task in published.report.tasks}
    commits = {(data.path, data.name, data.revision): data.commit for data in stream.lock.datasets}
    for task in stream.recipe.evaluate.tasks if stream.recipe.evaluate is not None else ():
        data = task.dataset
        if commits.get((data.written_path, data.name, data.revision)) != scored[task.name]:
            detail = f"the dataset commit of task {task.name} in {LOCK_FILE} is not the one in the report"
            yield Finding("lock", "differs", detail)


def check_weight_files(published: Published) -> Finding:
    """Check names and digests of the published weight files."""
    expected = published.report.steps[-1].files
    found = {name: digest for name, digest in published.files.files.items() if name.endswith(".safetensors")}
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            return Finding("weights", "differs", f"{name} does not match the digest in the report")
    matching = "matches its digest" if len(expected) == 1 else "match their digests"
    return Finding("weights", "same", f"{counted(len(expected), 'file')} {matching} in the report")


def check_history(published: Published) -> Iterator[Finding]:
    """Check that the report of every earlier tag is the beginning of this report."""
    repo, report = published.repo, published.report
    tags = [step for step in published_tags(repo) if step < published.step]
    for step in tags:
        try:
            earlier = RunReport.from_json(read_published_step(repo, step_tag(step)).metadata_files[REPORT_FILE])
        except HubmergeError as error:
            yield Finding("history", "differs", f"{step_tag(step)}: {error.message}")
            continue
        if [one.digest for one in earlier.steps] != [one.digest for one in report.steps[: len(earlier.steps)]]:
            yield Finding("history", "differs", f"the report at {step_tag(step)} is not the beginning of this one")
            return
        score = _different_score(earlier, report)
        if score is not None:
            yield Finding("history", "differs", f"the report at {step_tag(step)} has another value for {score}")
            return
    agrees = "agrees" if len(tags) == 1 else "agree"
    yield Finding("history", "same", f"{counted(len(tags), 'earlier tag')} {agrees} with this report")


def _different_score(earlier: RunReport, report: RunReport) -> str | None:
    """Return the first score outside of the steps that both reports have and that differs."""
    for kind in ("base_scores", "own_scores"):
        before, now = getattr(earlier, kind), getattr(report, kind)
        for task in sorted(set(before) & set(now)):
            if before[task] != now[task]:
                return f"{kind}.{task}"
    return None
