"""Merge a stream of fine-tuned models from the Hugging Face Hub into one, step by step, and publish every step."""

from __future__ import annotations

from hubmerge.support.version import VERSION as __version__  # noqa: N811 - the name that the field uses

__all__ = ["__version__"]
