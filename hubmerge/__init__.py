"""Merge fine-tuned models from the Hugging Face Hub, step by step, and publish every step.

    import hubmerge

    for step in hubmerge.run("recipe.yaml", out="merged"):
        print(step.step, step.name)

Each name is loaded when it is first used: `import hubmerge` imports neither torch nor a client of the Hub.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from hubmerge.support.version import VERSION as __version__  # noqa: N811 - the name every package uses
from merge_recipes.lazy_names import load_names

if TYPE_CHECKING:
    from hubmerge.api.automation import deploy_hub_job, init_github, plan_hub_job, watch
    from hubmerge.api.combining import CombinedStream, combine, load_part
    from hubmerge.api.inspection import diff, inspect, leave_one_out
    from hubmerge.api.merging import StepRun, merge, run
    from hubmerge.api.method_list import MethodInfo, ParameterInfo, methods
    from hubmerge.api.pages import write_report
    from hubmerge.api.planning import Plan, PlannedStep, plan
    from hubmerge.api.proposals import propose
    from hubmerge.api.published import load_head, outdated, revoke, rollback, sign, verify
    from hubmerge.api.reading import read
    from hubmerge.api.recipes import (
        CheckedRecipe,
        FolderCheck,
        WrittenLock,
        check,
        check_folder,
        convert,
        load,
        lock,
        schema,
    )
    from hubmerge.api.state_dicts import merge_state_dicts
    from hubmerge.api.tools import StudyResult, demo, serve_hub, study
    from hubmerge.automation.hub_job import PlannedJob
    from hubmerge.automation.outdated import Change, Changes
    from hubmerge.errors import (
        CheckpointError,
        CombinedError,
        DatasetError,
        EvaluationError,
        HubError,
        HubmergeError,
        MachineError,
        RecipeError,
        TargetError,
        TargetMovedError,
        UsageError,
    )
    from hubmerge.hub.jobs import CreatedJob
    from hubmerge.inspection.differences import Diff, TensorDiff
    from hubmerge.inspection.entry_scores import EntryScore, LeaveOneOut
    from hubmerge.inspection.model import Inspection, MergedEntry
    from hubmerge.methods import (
        Absorbed,
        JointMethod,
        JointParameters,
        Method,
        MethodParameters,
        NoParameters,
        Norms,
        Sweep,
        TensorInput,
        TensorView,
    )
    from hubmerge.report.report import RunReport, StepReport
    from hubmerge.support.progress import Progress, SilentProgress
    from hubmerge.verify.finding import Finding, Verdict
    from merge_recipes import LoadedRecipe, PerTensor

_NAMES = {
    "hubmerge.api.automation": ("deploy_hub_job", "init_github", "plan_hub_job", "watch"),
    "hubmerge.api.combining": ("CombinedStream", "combine", "load_part"),
    "hubmerge.api.inspection": ("diff", "inspect", "leave_one_out"),
    "hubmerge.api.merging": ("StepRun", "merge", "run"),
    "hubmerge.api.method_list": ("MethodInfo", "ParameterInfo", "methods"),
    "hubmerge.api.pages": ("write_report",),
    "hubmerge.api.planning": ("Plan", "PlannedStep", "plan"),
    "hubmerge.api.proposals": ("propose",),
    "hubmerge.api.published": ("load_head", "outdated", "revoke", "rollback", "sign", "verify"),
    "hubmerge.api.reading": ("read",),
    "hubmerge.api.recipes": (
        "CheckedRecipe",
        "FolderCheck",
        "WrittenLock",
        "check",
        "check_folder",
        "convert",
        "load",
        "lock",
        "schema",
    ),
    "hubmerge.api.state_dicts": ("merge_state_dicts",),
    "hubmerge.api.tools": ("StudyResult", "demo", "serve_hub", "study"),
    "hubmerge.automation.hub_job": ("PlannedJob",),
    "hubmerge.automation.outdated": ("Change", "Changes"),
    "hubmerge.errors": (
        "CheckpointError",
        "CombinedError",
        "DatasetError",
        "EvaluationError",
        "HubError",
        "HubmergeError",
        "MachineError",
        "RecipeError",
        "TargetError",
        "TargetMovedError",
        "UsageError",
    ),
    "hubmerge.hub.jobs": ("CreatedJob",),
    "hubmerge.inspection.differences": ("Diff", "TensorDiff"),
    "hubmerge.inspection.entry_scores": ("EntryScore", "LeaveOneOut"),
    "hubmerge.inspection.model": ("Inspection", "MergedEntry"),
    "hubmerge.methods": (
        "Absorbed",
        "JointMethod",
        "JointParameters",
        "Method",
        "MethodParameters",
        "NoParameters",
        "Norms",
        "Sweep",
        "TensorInput",
        "TensorView",
    ),
    "hubmerge.report.report": ("RunReport", "StepReport"),
    "hubmerge.support.progress": ("Progress", "SilentProgress"),
    "hubmerge.verify.finding": ("Finding", "Verdict"),
    "merge_recipes": ("LoadedRecipe", "PerTensor"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Absorbed",
    "Change",
    "Changes",
    "CheckedRecipe",
    "CheckpointError",
    "CombinedError",
    "CombinedStream",
    "CreatedJob",
    "DatasetError",
    "Diff",
    "EntryScore",
    "EvaluationError",
    "Finding",
    "FolderCheck",
    "HubError",
    "HubmergeError",
    "Inspection",
    "JointMethod",
    "JointParameters",
    "LeaveOneOut",
    "LoadedRecipe",
    "MachineError",
    "MergedEntry",
    "Method",
    "MethodInfo",
    "MethodParameters",
    "NoParameters",
    "Norms",
    "ParameterInfo",
    "PerTensor",
    "Plan",
    "PlannedJob",
    "PlannedStep",
    "Progress",
    "RecipeError",
    "RunReport",
    "SilentProgress",
    "StepReport",
    "StepRun",
    "StudyResult",
    "Sweep",
    "TargetError",
    "TargetMovedError",
    "TensorDiff",
    "TensorInput",
    "TensorView",
    "UsageError",
    "Verdict",
    "WrittenLock",
    "__version__",
    "check",
    "check_folder",
    "combine",
    "convert",
    "demo",
    "deploy_hub_job",
    "diff",
    "init_github",
    "inspect",
    "leave_one_out",
    "load",
    "load_head",
    "load_part",
    "lock",
    "merge",
    "merge_state_dicts",
    "methods",
    "outdated",
    "plan",
    "plan_hub_job",
    "propose",
    "read",
    "revoke",
    "rollback",
    "run",
    "schema",
    "serve_hub",
    "sign",
    "study",
    "verify",
    "watch",
    "write_report",
]


if not TYPE_CHECKING:
    __getattr__ = load_names(__name__, _NAMES)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps a public function under its name when a subpackage of that name is imported.

    `hubmerge.run` is the function, although `hubmerge/run/` is a package, which `from hubmerge.run import ...` finds.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _MODULE_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
