"""What a run leaves behind: links to the published step, and commands for what comes next."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hubmerge.support.text import in_shell

if TYPE_CHECKING:
    from hubmerge.report.report import RunReport

PAGE_FILE = "report.html"


@dataclass(frozen=True)
class NextStep:
    """Something to do after a run, with the command for it."""

    purpose: str
    command: str


def links_of(repo: str, step: int, files: Collection[str]) -> dict[str, str]:
    """Return the web addresses of a published step: repo, step, card and report.

    Args:
        repo: the target repo.
        step: the last published step.
        files: the files of the step.
    """
    from hubmerge.hub.client import endpoint
    from hubmerge.support.names import CARD_FILE, REPORT_FILE, step_tag

    page = PAGE_FILE if PAGE_FILE in files else REPORT_FILE
    blob = f"{endpoint()}/{repo}/blob/{step_tag(step)}"
    return {
        "repo": f"{endpoint()}/{repo}",
        "step": f"{endpoint()}/{repo}/tree/{step_tag(step)}",
        "card": f"{blob}/{CARD_FILE}",
        "report": f"{blob}/{page}",
    }


def next_steps(
    report: RunReport, repo: str | None, recipe: str | None, *, has_state: bool, stacks: bool = False
) -> Iterator[NextStep]:
    """Yield what can be done after a run, as far as the method and the target allow it.

    Args:
        report: the report of the stream.
        repo: the target repo, None if nothing is published.
        recipe: the file of the recipe, None if there is none.
        has_state: True if the state is published.
        stacks: True if the recipe stacks layers, which leaves no place for one more model.
    """
    from hubmerge.methods import METHODS, Method, find_method
    from hubmerge.methods.readers import saved_name

    again = f"hubmerge run {in_shell(recipe)}" if recipe is not None else None
    method = find_method(report.merge_method, joint=report.is_joint).method
    extends = not stacks and (isinstance(method, Method) or method.most is None)
    if repo is None:
        if again is not None:
            yield NextStep("publish: add `publish: {repo: your-name/merged}` to the recipe, and run it again", again)
            if extends:
                yield NextStep("extend: add a model at the end of the recipe, and run it again", again)
        return
    yield NextStep("verify", f"hubmerge verify {repo}")
    yield NextStep("report as a page", f"hubmerge report {repo}")
    if again is not None and extends:
        yield NextStep("extend: add a model at the end of the recipe, and run it again", again)
    if not isinstance(method, Method) or not has_state:
        return
    readers = [one.name for one in METHODS if one.reads_state and saved_name(one) == saved_name(method)]
    other = next((name for name in readers if name != method.name), None)
    if other is not None:
        yield NextStep("read with another method", f"hubmerge read {repo} --method {other} --out {other}")
    if method.revokes and len(report.steps) > 1:
        out = {step.revokes for step in report.steps}
        last = next(step.name for step in reversed(report.steps) if step.revokes is None and step.name not in out)
        yield NextStep("take a model out, such as the last one", f"hubmerge revoke {repo} {last}")
