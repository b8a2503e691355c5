"""Run by the interpreter of fusion_bench's environment: OPCMForCLIP over local folders, every step saved.

    python fusion_bench_opcm.py ALPHA LOGS BASE MODEL...

The class is called as its own command does, without Hydra in front of it, which costs it seconds at the start.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import lightning
from fusion_bench.method.opcm.opcm import OPCMForCLIP
from fusion_bench.modelpool import CLIPVisionModelPool
from lightning.fabric.loggers import TensorBoardLogger
from omegaconf import DictConfig


def main(alpha: str, logs: str, base: str, *models: str) -> None:
    """Merge the models in the order given."""
    pool = CLIPVisionModelPool(DictConfig({"_pretrained_": base, **{f"model-{i}": m for i, m in enumerate(models)}}))
    method = OPCMForCLIP(alpha=float(alpha), shuffle_order=False, save_on_every_step=True, evaluate_on_every_step=False)
    method.fabric = lightning.Fabric(accelerator="cpu", devices=1, loggers=TensorBoardLogger(logs, name=""))
    method._program = SimpleNamespace(taskpool=SimpleNamespace(_test_datasets={}))
    method.run(pool)


if __name__ == "__main__":
    main(*sys.argv[1:])
