"""Merge a stream of fine-tuned models from the Hugging Face Hub into one, step by step, and publish every step."""

from __future__ import annotations

__version__ = "0.1.0"
