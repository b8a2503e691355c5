"""Merging whole folders of models, from files to files, as a run does it; and the same by the literal oracle."""

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
    align,
    check_loads,
    check_ties,
    make_plan,
    open_checkpoint,
    weight_matrices,
)
from hubmerge.executor import StepInput, StepStats, merge_steps, write_merged
from hubmerge.executor.state import MergeState
from hubmerge.methods import method_named
from hubmerge.run.model_folder import check_written, copy_auxiliary_files, write_config
from tests import oracle


@dataclass(frozen=True)
class Merged:
    """The merged model after the last step, in `folder`, and what is known of it."""

    folder: Path
    plan: MergePlan
    rule: MatrixRule
    figures: StepStats
    rounding: float | None

    def values(self) -> dict[str, torch.Tensor]:
        """All tensors of the merged model."""
        with open_checkpoint(self.folder) as merged:
            return {name: merged.read(name) for name in merged.tensors}

    def actions(self) -> dict[str, str]:
        """What was done to each tensor."""
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
    """Merge checkpoints into the model in `base_folder`; the merged model is checked to load in transformers."""
    base = open_checkpoint(base_folder, "base")
    rule = weight_matrices(base.config, base.tensors)
    opened = [each if isinstance(each, Checkpoint) else open_checkpoint(each, each.name) for each in checkpoints]
    aligned = [align(base, each, selection=selection, ties=rule.ties) for each in opened]
    plan = make_plan(base, aligned, rule, selection=selection, out_dtype=out_dtype)
    for each in (base, *aligned):
        check_ties(each, plan)
    chosen = method_named(method)
    parameters = chosen.Parameters()
    state: MergeState | None = None
    for number, checkpoint in enumerate(aligned, start=1):
        place = folder / f"state{number}"
        incoming = StepInput(checkpoint, lambda name: parameters)
        state, (figures,) = merge_steps(base, [incoming], state, chosen, plan, place, workers=1)
    assert state is not None
    merged = folder / "merged"
    merged.mkdir()
    written = write_merged(base, state, plan, merged, workers=1)
    copy_auxiliary_files(base_folder, merged)
    write_config(base.config, merged, out_dtype=None if out_dtype is None else str(out_dtype).removeprefix("torch."))
    check_written(merged, plan.specs)
    check_loads_whole(merged)
    return Merged(merged, plan, rule, figures, written.rounding)


def check_loads_whole(folder: Path) -> None:
    """Load the files in transformers: nothing is missing or left over, and hubmerge says so from the headers alone."""
    import transformers

    with open_checkpoint(folder) as merged:
        config, shapes = merged.config, {name: info.shape for name, info in merged.tensors.items()}
    assert check_loads(config, shapes, shapes, "merged") == ()
    model_class = getattr(transformers, config["architectures"][0])
    _, found = model_class.from_pretrained(folder, output_loading_info=True, device_map="meta")
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), found


def as_oracle_sees(tensors: dict[str, torch.Tensor], plan: MergePlan) -> dict[str, np.ndarray]:
    """The tensors that the plan merges, in float64, every expert's matrix under a name of its own."""
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
    """What the literal form of OPCM makes of the same tensors."""
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
