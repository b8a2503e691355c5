"""Runs that are killed, runs against a Hub that fails, damaged recipes and checkpoints: how each ends.

    python benchmarks/reliability.py kills --count 200       # kill -9 at random moments, then run again
    python benchmarks/reliability.py faults --count 40       # 10 % of the requests fail, in six ways that pass
    python benchmarks/reliability.py faults --count 40 --refusals  # and in two that do not
    python benchmarks/reliability.py disks --count 40        # no file can grow beyond a random size, then run again
    python benchmarks/reliability.py recipes --count 10000   # damaged recipes
    python benchmarks/reliability.py checkpoints --count 2000

Each run merges three untrained checkpoints and publishes every step on an embedded Hub, from an empty cache. The
figures come as one JSON object; an assertion that fails ends the program.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from hubmerge.localhub import LocalHub
from hubmerge.localhub.faults import TRANSIENT, Fault
from tests.run_launcher import RunLauncher

ENTRIES = 3
REQUESTS_THAT_FAIL = 0.1
LONGEST_CASE_SECONDS = 900
"""Seconds after which a run counts as hung; the program then ends."""


@dataclass
class Scene:
    """A Hub with the stream on it, a way to start runs, and what an undisturbed run publishes."""

    folder: Path
    hub: LocalHub
    launcher: RunLauncher
    write_recipe: Callable[[str], Path]
    whole: dict[str, dict[str, str]]
    made_files: set[str]

    def start(self, repo: str, trial: Path, largest_file: int | None = None) -> int:
        """Start a run into `repo` with work folder and cache below `trial`."""
        trial.mkdir(exist_ok=True)
        recipe = self.write_recipe(repo)
        arguments = ("run", recipe, "--json", "--work-dir", trial / "work")
        temporary = {"TMPDIR": str(trial), "HF_DATASETS_CACHE": str(trial / "datasets")}
        places = {"output": trial / "output", "cache": trial / "cache"}
        return self.launcher.start(*arguments, **places, largest_file=largest_file, **temporary)

    def forget_files(self) -> None:
        """Remove from the Hub what runs uploaded, so that the next one has to upload it again."""
        for digest in self.made_files:
            self.hub.site.store.lfs_path(digest).unlink(missing_ok=True)


def last_stage(output: Path) -> str:
    """Return the stage in which a run ended, from its JSON lines: the one after the last finished stage."""
    titles = [event["title"] for event in _events(output) if event["event"] == "stage"]
    return titles[-1].partition(" to ")[0] if titles else "none yet"


def _events(output: Path) -> list[dict[str, Any]]:
    events = []
    for line in output.read_text().splitlines() if output.is_file() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def set_scene(folder: Path, *, evaluate: bool) -> Scene:
    """Serve a Hub, push the stream, run once undisturbed."""
    hub = LocalHub(folder / "hub").start()
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    os.environ |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    from huggingface_hub import HfApi

    from hubmerge.demo.make_stream import make_tiny_repos
    from tests.reliability.target_checks import files_at, published, steps_shown
    from tests.stage import Stage

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    stream, api = make_tiny_repos(folder / "stream", tasks=ENTRIES), HfApi()
    for repo in stream.repos():
        api.create_repo(repo.repo, repo_type=repo.kind)
        api.upload_folder(repo_id=repo.repo, folder_path=repo.folder, repo_type=repo.kind)
    names = [task.name for task in stream.tasks]
    towers = {name: stream.tower(name).repo for name in names}
    stage = Stage(folder, stream.base.repo, towers, {name: stream.dataset(name).repo for name in names})

    def write_recipe(repo: str) -> Path:
        changes = {} if evaluate else {"evaluate": None}
        return stage.write(folder, stage.recipe(repo, **changes))

    given = {
        digest for repo in stream.repos() if repo.kind == "model" for digest in files_at(repo.repo, "main").values()
    }
    scene = Scene(folder, hub, RunLauncher({}), write_recipe, {}, set())
    scene.start("local/undisturbed", folder / "undisturbed")
    assert scene.launcher.wait() == 0, (folder / "undisturbed" / "output").read_text()
    assert steps_shown("local/undisturbed") == list(range(1, ENTRIES + 1))
    scene.whole = published("local/undisturbed")
    made = {digest for files in scene.whole.values() for digest in files.values() if len(digest) == 64}
    scene.made_files = made | {d for d in files_at("local/undisturbed", "hubmerge-state").values() if len(d) == 64}
    scene.made_files -= given
    return scene


def kills(scene: Scene, count: int, seed: int) -> dict[str, Any]:
    """Kill `count` runs, each at a moment drawn evenly from the time that a run takes; let each go on."""
    from tests.reliability.target_checks import steps_shown

    chance = random.Random(seed)
    lengths = [_seconds_of_a_run(scene, number) for number in range(3)]
    moments, shown, drawn_again = Counter[str](), Counter[int](), 0
    done = 0
    while done < count:
        trial, repo = scene.folder / "trial", f"local/trial-{done}-{drawn_again}"
        shutil.rmtree(trial, ignore_errors=True)
        scene.forget_files()
        pid = scene.start(repo, trial)
        time.sleep(chance.uniform(0, statistics.median(lengths)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if scene.launcher.wait() != -signal.SIGKILL:
            drawn_again += 1
            continue
        done += 1
        moments[last_stage(trial / "output")] += 1
        shown[len(steps_shown(repo))] += 1
        _go_on(scene, repo, trial)
        _check_whole(scene, repo, trial)
        print(f"\r{done} of {count}", end="", file=sys.stderr, flush=True)
    return {
        "kills": done,
        "resumed": done,
        "identical": done,
        "run seconds (median)": round(statistics.median(lengths), 2),
        "ended before the kill, drawn again": drawn_again,
        "last finished stage before the kill": dict(sorted(moments.items())),
        "steps published before the kill": dict(sorted(shown.items())),
    }


def _go_on(scene: Scene, repo: str, trial: Path) -> None:
    scene.start(repo, trial)
    assert scene.launcher.wait() == 0, (trial / "output").read_text()


def _check_whole(scene: Scene, repo: str, trial: Path) -> None:
    """Compare what was published with the undisturbed run's, look for anything left over, and make room."""
    from huggingface_hub import HfApi

    from tests.reliability.target_checks import leftovers, published, steps_shown

    assert steps_shown(repo) == list(range(1, ENTRIES + 1))
    assert published(repo) == scene.whole
    assert leftovers(trial) == [], leftovers(trial)
    HfApi().delete_repo(repo)


def _seconds_of_a_run(scene: Scene, number: int) -> float:
    trial = scene.folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    scene.forget_files()
    begin = time.monotonic()
    _go_on(scene, f"local/timed-{number}", trial)
    return time.monotonic() - begin


def faults(scene: Scene, count: int, seed: int, kinds: Sequence[Fault] = TRANSIENT) -> dict[str, Any]:
    """Run `count` times while requests fail; where a run ends with an error, run again with a Hub that works."""
    from tests.reliability.target_checks import steps_shown

    plain = [_seconds_of_a_run(scene, number) for number in range(3)]
    endings, drawn = Counter[str](), Counter[str]()
    seconds = []
    for number in range(count):
        trial, repo = scene.folder / "trial", f"local/trial-{number}"
        shutil.rmtree(trial, ignore_errors=True)
        scene.forget_files()
        scene.hub.faults.set(REQUESTS_THAT_FAIL, seed + number, kinds)
        begin = time.monotonic()
        scene.start(repo, trial)
        status = scene.launcher.wait()
        seconds.append(time.monotonic() - begin)
        drawn.update({fault.name.lower(): times for fault, times in scene.hub.faults.drawn.items()})
        scene.hub.faults.set(0)
        text = (trial / "output").read_text()
        assert "Traceback" not in text, text
        assert status in {0, 3}, text
        steps_shown(repo)
        told = [event["message"] for event in _events(trial / "output") if event["event"] == "error"]
        endings[told[-1] if status else "ended well"] += 1
        if status:
            _go_on(scene, repo, trial)
        _check_whole(scene, repo, trial)
        print(f"\r{number + 1} of {count}", end="", file=sys.stderr, flush=True)
    return {
        "runs": count,
        "requests that failed": sum(drawn.values()),
        "in these ways": dict(sorted(drawn.items())),
        "endings": dict(endings),
        "seconds without faults (median)": round(statistics.median(plain), 2),
        "seconds (median)": round(statistics.median(seconds), 2),
        "seconds (longest)": round(max(seconds), 2),
    }


def disks(scene: Scene, count: int, seed: int) -> dict[str, Any]:
    """Run `count` times on a system that lets no file grow beyond some size; then let each go on without a limit.

    The sizes are those of files that a run leaves, less one byte. Every other run finds its downloads in the cache, so
    that what it writes itself is the first to fail.
    """
    from tests.reliability.target_checks import steps_shown

    chance = random.Random(seed)
    _seconds_of_a_run(scene, 0)
    sizes = sorted({path.stat().st_size for path in (scene.folder / "trial").rglob("*") if path.is_file()} - {0})
    endings, moments = Counter[str](), Counter[str]()
    for number in range(count):
        trial, repo = scene.folder / "trial", f"local/trial-{number}"
        shutil.rmtree(trial, ignore_errors=True)
        scene.forget_files()
        limit = chance.choice(sizes) - 1
        if number % 2:
            shutil.copytree(scene.folder / "undisturbed" / "cache", trial / "cache", symlinks=True)
        scene.start(repo, trial, largest_file=limit)
        status = scene.launcher.wait()
        text = (trial / "output").read_text()
        assert "Traceback" not in text, text
        assert "internal error" not in text, text
        assert status in {0, 5}, (limit, text)
        endings[f"exit status {status}"] += 1
        moments[last_stage(trial / "output")] += 1
        steps_shown(repo)
        _go_on(scene, repo, trial)
        _check_whole(scene, repo, trial)
        print(f"\r{number + 1} of {count}", end="", file=sys.stderr, flush=True)
    return {
        "runs": count,
        "sizes to draw from": len(sizes),
        "endings": dict(sorted(endings.items())),
        "last finished stage": dict(sorted(moments.items())),
    }


def fuzzed(what: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Give damaged recipes to `hubmerge check`, or damaged checkpoints to `hubmerge run`."""
    from hubmerge.cli.main import main
    from tests.reliability.fuzzing import fuzz_checkpoints, fuzz_recipes

    done = 0

    def command(*options: str | Path) -> tuple[int, str]:
        nonlocal done
        done += 1
        if done % 100 == 0:
            print(f"\r{done} of {count}", end="", file=sys.__stderr__, flush=True)
        told = io.StringIO()
        faulthandler.dump_traceback_later(LONGEST_CASE_SECONDS, exit=True, file=sys.__stderr__)
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            status = main(list(map(str, options)))
        faulthandler.cancel_dump_traceback_later()
        return status, told.getvalue()

    begin = time.monotonic()
    endings = (fuzz_recipes if what == "recipes" else fuzz_checkpoints)(count, seed, folder, command)
    return {"cases": count, "endings": endings, "seconds": round(time.monotonic() - begin)}


def main() -> None:
    """Read the command line, do it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "faults", "disks", "recipes", "checkpoints"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--refusals", action="store_true", help="with tokens that expire and commits that are refused")
    parser.add_argument("--evaluate", action="store_true", help="score the tasks as well: slower")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hubmerge-reliability-") as name:
        if arguments.what in {"recipes", "checkpoints"}:
            figures = fuzzed(arguments.what, arguments.count, arguments.seed, Path(name))
        else:
            scene = set_scene(Path(name), evaluate=arguments.evaluate)
            try:
                if arguments.what == "kills":
                    figures = kills(scene, arguments.count, arguments.seed)
                elif arguments.what == "disks":
                    figures = disks(scene, arguments.count, arguments.seed)
                else:
                    kinds = tuple(Fault) if arguments.refusals else TRANSIENT
                    figures = faults(scene, arguments.count, arguments.seed, kinds)
            finally:
                scene.launcher.close()
                scene.hub.stop()
    print()
    print(json.dumps({"what": arguments.what, "seed": arguments.seed, **figures}, indent=1))


if __name__ == "__main__":
    main()
