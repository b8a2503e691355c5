"""Check that the state branch of a repo has states and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.hub import states
from hubmerge.support.names import GIT_ATTRIBUTES, STATE_BRANCH
from hubmerge.support.text import listed
from hubmerge.verify.files import odd_attribute
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import is_never_loaded
from hubmerge.verify.published import Published


def check_state_branch(published: Published) -> Iterator[Finding]:
    """Name the files on the state branch that are no files of a state. Runs do not read them.

    Texts, pictures and licenses at the top of the branch are no finding: version 0.1.0 began the branch with the files
    of the first commit of the repo.
    """
    if published.files.is_alone:
        return
    found = states.branch_files(published.repo)
    others = [path for path in found if path != GIT_ATTRIBUTES and states.state_folder_of(path) is None]
    foreign = [path for path in others if "/" in path or not is_never_loaded(path)]
    if foreign:
        one = len(foreign) == 1
        what = (
            "is not a file of a state; runs do not read it"
            if one
            else "are not files of a state; runs do not read them"
        )
        yield Finding("state", "differs", f"on branch {STATE_BRANCH}: {listed(foreign)} {what}")
    odd = odd_attribute(states.read_attributes(published.repo)) if GIT_ATTRIBUTES in found else None
    if odd is not None:
        detail = f"{GIT_ATTRIBUTES} on branch {STATE_BRANCH} changes files when git checks them out: {odd[:60]!r}"
        yield Finding("state", "differs", detail)
