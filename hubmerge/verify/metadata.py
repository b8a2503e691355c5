"""Checks of report, recipe, lock and file digests against each other, without the weights."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from hubmerge.stream.stream import Stream
from hubmerge.support.names import LOCK_FILE, RECIPE_FILE, REPORT_FILE, step_tag
from hubmerge.support.text import counted
from hubmerge.verify.finding import Finding
from hubmerge.verify.published import Published
from hubmerge.verify.stages import check_stages
from merge_recipes import RecipeError, joint_digest, recipe_digest


def check_digests(published: Published) -> Finding:
    """Check the digest of every step in the report."""
    broken = published.sealed.broken_digest()
    if broken is not None:
        return Finding("report", "differs", f"the digest of {step_tag(broken)} does not match its content")
    if published.sealed.has_broken_seal:
        return Finding("report", "differs", f"the seal of {REPORT_FILE} does not match its content")
    if published.history_problem is not None:
        return Finding("report", "differs", published.history_problem)
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
    broken = (yield from check_stages(published, published.stream)) or broken
    if not broken:
        yield from _check_base_and_datasets(published, published.stream)
        yield Finding("chain", "same", "the chain digest of every step follows from recipe and lock")


def _check_steps(published: Published, stream: Stream) -> Generator[Finding, None, bool]:
    """Check entries and chain digests; return True if a chain digest differs."""
    if published.report.is_joint:
        return (yield from _check_joint_steps(published, stream))
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


def _check_joint_steps(published: Published, stream: Stream) -> Generator[Finding, None, bool]:
    """Check the models of the last step, and its digest; the steps before have recipes and locks of their own."""
    last = published.report.steps[-1]
    locked = [(one.name, str(one.reference), one.commit) for one in stream.lock.models]
    if locked != [(one.name, one.reference, one.commit) for one in last.inputs]:
        yield Finding("lock", "differs", f"{LOCK_FILE} does not list the models of step {last.step} in the report")
    if last.chain_digest != joint_digest(stream.recipe, stream.lock):
        yield Finding("chain", "differs", f"the chain digest of step {last.step} does not follow from recipe and lock")
        return True
    return False


def _check_base_and_datasets(published: Published, stream: Stream) -> Iterator[Finding]:
    base, reported = stream.lock.base_model, published.report.base_model
    if (str(base.reference), base.commit) != (reported.reference, reported.commit):
        yield Finding("lock", "differs", f"the base model in {LOCK_FILE} is not the one in the report")
    scored = {task.name: [one.commit for one in task.data] for task in published.report.tasks}
    if len(scored) != len(published.report.tasks):
        yield Finding("report", "differs", "a task is listed twice")
    yield from _check_task_names(published, set(scored))
    commits = {(data.path, data.name, data.revision): data.commit for data in stream.lock.datasets}
    for task in stream.recipe.evaluate.tasks if stream.recipe.evaluate is not None else ():
        locked = [commits.get((one.written_path, one.name, one.revision)) for one in task.dataset.sources]
        if task.name in scored and locked != scored[task.name]:
            detail = f"the dataset commit of task {task.name} in {LOCK_FILE} is not the one in the report"
            yield Finding("lock", "differs", detail)


def _check_task_names(published: Published, scored: set[str]) -> Iterator[Finding]:
    """Check that the report has the tasks of the recipe up to this step, no more and no less."""
    expected = published.expected_tasks
    for name in sorted(expected - scored):
        yield Finding("recipe", "differs", f"task {name} of {RECIPE_FILE} is not in the report")
    for name in sorted(scored - expected):
        yield Finding("recipe", "differs", f"task {name} of the report is not in {RECIPE_FILE}")
