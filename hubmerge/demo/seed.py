"""Push of a demo stream to a Hub: one commit for each repo whose files differ."""

from __future__ import annotations

from collections.abc import Callable

from hubmerge.demo.stream import DemoStream
from hubmerge.hub.folders import publish_folder

Progress = Callable[[str], None]


def seed_hub(
    stream: DemoStream, progress: Progress = print, *, endpoint: str | None = None, token: str | None = None
) -> int:
    """Push every repo of the stream whose files differ on the Hub.

    Args:
        stream: the complete stream.
        progress: called with each line about the progress.
        endpoint: the Hub; None for the one of HF_ENDPOINT.
        token: the token; None for the one of HF_TOKEN or of the login.

    Returns:
        The number of pushed repos.

    Raises:
        HubError: the Hub refuses, for example because the token has no write permission in the namespace.
    """
    repos = stream.repos()
    progress(f"pushing {len(repos)} repos of {stream.settings.namespace}")
    pushed = 0
    for repo in repos:
        title = "Add the files of the demo"
        pushed += publish_folder(repo.kind, repo.repo, repo.folder, title=title, endpoint=endpoint, token=token)
    progress(f"pushed {pushed} repos, {len(repos) - pushed} were already there")
    return pushed
