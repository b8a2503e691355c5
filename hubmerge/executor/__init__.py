"""One step of a merge over all tensors: absorb a checkpoint into the state, write the merged model."""

from __future__ import annotations

from hubmerge.executor.device import pick_device
from hubmerge.executor.figures import StepFigures, TensorFigures
from hubmerge.executor.merging import merge_step
from hubmerge.executor.writing import write_merged

__all__ = ["StepFigures", "TensorFigures", "merge_step", "pick_device", "write_merged"]
