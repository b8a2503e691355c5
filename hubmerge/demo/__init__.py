"""The tiny CLIP stream: drawn, trained and published on any machine, so that every command has something to eat."""

from __future__ import annotations

from hubmerge.demo.command import quickstart_recipe, run_demo

__all__ = ["quickstart_recipe", "run_demo"]
