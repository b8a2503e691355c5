"""Studies: one stream is merged in many ways, and all merges are scored and compared in tables and plots.

recipe: ./quickstart.yaml     # the stream, its tasks, its dtype and its tensors
methods:                      # the variants
  - method: opcm
    parameters: {alpha: [0.1, 0.5, 0.9]}    # a list is a sweep
  - method: weight_average
orders: 10                    # shuffled orders, seeds 0 to 9
tasks: [4, 8]                 # the first 4 entries, and all 8
"""

from __future__ import annotations

from hubmerge.study.runner import run_study
from hubmerge.study.schema import LoadedStudy, Study, Variant, load_study

__all__ = ["LoadedStudy", "Study", "Variant", "load_study", "run_study"]
