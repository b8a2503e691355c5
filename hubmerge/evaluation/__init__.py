"""Scoring the merged model on the tasks seen so far."""

from __future__ import annotations

from hubmerge.accuracy import AccuracyMatrix
from hubmerge.evaluation.metrics import SHIPPED_METRIC_NAMES

__all__ = ["SHIPPED_METRIC_NAMES", "AccuracyMatrix"]
