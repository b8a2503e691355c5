"""Demo stream of tiny CLIP models, trained and published on any machine in minutes."""

from __future__ import annotations

from hubmerge.demo.command import quickstart_recipe, run_demo

__all__ = ["quickstart_recipe", "run_demo"]
