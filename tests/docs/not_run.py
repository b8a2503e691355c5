"""What the documentation shows and the tests of this folder do not run, with the reason. There is no other list."""

from __future__ import annotations

NOT_RUN: dict[str, str] = {
    # commands by their beginning
    "make ": "runs the tests that would run it; that the target exists is checked",
    "pip install": "needs a package index",
    "python3 -m venv": "needs a package index",
    "pytest -m slow tests/checkpoints/formats/test_transformers4.py": "needs a second environment from a package index",
    "python benchmarks/": "takes minutes to hours; that the script exists and is valid Python is checked",
    "python -m pytest tests/reliability": "is a part of the tests",
    "python -m hubmerge.demo.": "tests/demo runs these modules",
    "accelerate launch": "tests/run/test_several_processes.py runs several processes",
    "torchrun": "tests/run/test_several_processes.py runs several processes",
    "hubmerge demo": "trains for two minutes; tests/demo runs it",
    "hubmerge hub serve": "serves until it is stopped; tests/localhub runs it",
    "hubmerge watch": "watches until it is stopped; tests/automation runs it",
    "hubmerge run recipes/": "tests/demo runs the recipes of the repository with stand-ins; here they are checked",
    "hubmerge plan recipes/": "tests/demo runs the recipes of the repository with stand-ins; here they are checked",
    "hubmerge study recipes/": "tests/demo runs the studies of the paper with stand-ins; here they are loaded",
    "hubmerge study benchmarks/": "needs models that are trained in an hour; here their keys are checked",
    "hubmerge verify your-name/merged --identity": "needs the services of Sigstore; tests/provenance has local ones",
}
