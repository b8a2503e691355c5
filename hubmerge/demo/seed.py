"""Push a demo stream to a Hub: one commit for each repo, and none where the repo holds the same files already."""

from __future__ import annotations

from collections.abc import Callable

from hubmerge.demo.stream import DemoStream
from hubmerge.hub.folders import publish_folder

Progress = Callable[[str], None]


def seed_hub(
    stream: DemoStream, progress: Progress = print, *, endpoint: str | None = None, token: str | None = None
) -> int:
    """Push every repo of the stream that the Hub does not hold yet; return how many were pushed.

    endpoint, token: the Hub, by default the one that HF_ENDPOINT and HF_TOKEN name.

    Raises:
        HubError: the Hub refuses, for example because the token may not write to the stream's namespace.
    """
    repos = stream.repos()
    progress(f"pushing {len(repos)} repos of {stream.settings.namespace}")
    pushed = 0
    for repo in repos:
        title = "Add the files of the demo"
        pushed += publish_folder(repo.kind, repo.repo, repo.folder, title=title, endpoint=endpoint, token=token)
    progress(f"pushed {pushed} repos, {len(repos) - pushed} were already there")
    return pushed
