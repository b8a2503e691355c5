"""Merges of whole model folders, from files to files as in a run, and the same merges by the literal oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hubmerge.checkpoints import (
    ALL_TENSORS,
    Checkpoint,
    MatrixRule,
    MergePlan,
    Selection,
    align_models,
    check_loads,
    check_ties,
    make_plan,
    open_checkpoint,
    published_config,
    weight_matrices,
)
from hubmerge.executor import ExecutorContext, Merge, StepInput, StepStats, merge_steps, write_merged
from hubmerge.executor.state import MergeState
from hubmerge.methods import method_named
from hubmerge.run.model_folder import check_written, copy_auxiliary_files, write_config
from tests import oracle

ONE_THREAD = ExecutorContext(workers=1)


@dataclass(frozen=True)
class Merged:
    """Merged model after the last step, in `folder`, with its plan and statistics."""

    folder: Path
    plan: MergePlan
    rule: MatrixRule
    stats: StepStats
    rounding: float | None

    def values(self) -> dict[str, torch.Tensor]:
        """Return all tensors of the merged model."""
        with open_checkpoint(self.folder) as merged:
            return {name: merged.read(name) for name in merged.tensors}

    def actions(self) -> dict[str, str]:
        """Return the action for each tensor."""
        return {tensor.name: tensor.action for tensor in self.plan.tensors}


def merge(
    folder: Path,
    base_folder: Path,
    checkpoints: Sequence[Path | Checkpoint],
    *,
    selection: Selection = ALL_TENSORS,
    out_dtype: torch.dtype | None = None,
    method: str = "opcm",
) -> Merged:
    """Merge checkpoints into the model in `base_folder` and check that transformers loads the merged model."""
    base = open_checkpoint(base_folder, "base")
    rule = weight_matrices(base.config, base.tensors)
    opened = [each if isinstance(each, Checkpoint) else open_checkpoint(each, each.name) for each in checkpoints]
    models = align_models(base, rule, opened, selection=selection)
    base, rule, aligned = models.base, models.rule, models.aligned
    plan = make_plan(base, aligned, rule, selection=selection, out_dtype=out_dtype)
    for each in (base, *aligned):
        check_ties(each, plan)
    merge_method = method_named(method)
    parameters = merge_method.Parameters()
    state: MergeState | None = None
    for number, checkpoint in enumerate(aligned, start=1):
        place = folder / f"state{number}"
        step_input = StepInput(checkpoint, lambda _: parameters)
        merge_of_all = Merge(base, merge_method, plan)
        state, (stats,) = merge_steps(merge_of_all, [step_input], state, place, context=ONE_THREAD)
    assert state is not None
    merged = folder / "merged"
    merged.mkdir()
    written = write_merged(base, state, plan, merged, context=ONE_THREAD)
    copy_auxiliary_files(base_folder, merged)
    write_config(published_config(base, plan.tensors, out_dtype).content, merged)
    check_written(merged, plan.specs)
    check_loads_whole(merged)
    return Merged(merged, plan, rule, stats, written.rounding)


def check_loads_whole(folder: Path) -> None:
    """Check that transformers loads the files completely, and that hubmerge predicts it from the headers."""
    import transformers

    with open_checkpoint(folder) as merged:
        config, shapes = merged.config, {name: info.shape for name, info in merged.tensors.items()}
    assert check_loads(config, shapes, shapes, "merged") == ()
    model_class = getattr(transformers, config["architectures"][0])
    _, found = model_class.from_pretrained(folder, output_loading_info=True, device_map="meta")
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), found


def as_oracle_sees(tensors: dict[str, torch.Tensor], plan: MergePlan) -> dict[str, np.ndarray]:
    """Return the tensors that the plan merges, in float64, with each expert's matrix under a name of its own."""
    split: dict[str, np.ndarray] = {}
    for planned in plan.merged:
        values = tensors[planned.name].to(torch.float64).numpy()
        if planned.action == "merge-matrix" and values.ndim == 3:
            split |= {f"{planned.name}[{number}]": matrix for number, matrix in enumerate(values)}
        else:
            split[planned.name] = values
    return split


def oracle_step(
    plan: MergePlan, base: dict[str, torch.Tensor], checkpoints: Sequence[dict[str, torch.Tensor]]
) -> oracle.OracleStep:
    """Return the last step of the literal OPCM on the same tensors."""
    matrices = {
        name
        for name in as_oracle_sees(base, plan)
        if any(t.action == "merge-matrix" and name.partition("[")[0] == t.name for t in plan.merged)
    }
    start: Any = as_oracle_sees(base, plan)
    return oracle.opcm(start, [as_oracle_sees(each, plan) for each in checkpoints], matrices)[-1]


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}
