"""Make the two language streams and push them to the Hub of HF_ENDPOINT.

hubmerge hub serve --root hub &            # prints HF_ENDPOINT and HF_TOKEN
python -m hubmerge.demo.language
hubmerge run recipes/language-quickstart.yaml
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.demo.plan import NAMESPACE
from hubmerge.demo.stand_ins import check_endpoint
from hubmerge.errors import HubmergeError
from hubmerge.support.redaction import shown

if TYPE_CHECKING:
    from hubmerge.demo.language.training import LanguagePlan


def push_language(
    folder: Path,
    namespace: str = NAMESPACE,
    progress: Callable[[str], None] = print,
    *,
    plan: LanguagePlan | None = None,
) -> int:
    """Make both streams below a new folder and push them; return the number of repos.

    Raises:
        HubError: HF_ENDPOINT is not set or is the public Hub, or the Hub refuses.
    """
    check_endpoint(os.environ.get("HF_ENDPOINT", ""))
    from hubmerge.demo.language.make_repos import make_language
    from hubmerge.hub.folders import publish_folder

    count = 0
    for repo in make_language(folder, namespace, progress, plan=plan):
        pushed = publish_folder(repo.kind, repo.repo, repo.folder, title="Add the files of the demo")
        progress(f"{repo.kind} {repo.repo}: {'pushed' if pushed else 'was there already'}")
        count += 1
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m hubmerge.demo.language", description=about)
    parser.add_argument("--namespace", default=NAMESPACE, help="where the repos go (default: %(default)s)")
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        with tempfile.TemporaryDirectory(prefix="hubmerge-language-") as folder:
            count = push_language(Path(folder), options.namespace)
    except HubmergeError as error:
        print(shown(str(error)), file=sys.stderr)
        return error.exit_code
    print(f"{count} repos are there; now: hubmerge run recipes/language-quickstart.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
