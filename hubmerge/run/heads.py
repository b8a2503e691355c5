"""Heads of fine-tuned models beside the merged model: `heads/<entry>.safetensors` and `heads/<entry>.json`.

The heads of finished steps are kept in the work folder. A head that is not there is taken from the published step, or
else from its checkpoint.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from hubmerge.checkpoints import Checkpoint
from hubmerge.checkpoints.planning.task_heads import describe_head, find_head, write_head
from hubmerge.errors import CheckpointError
from hubmerge.plan.settings import selection_of
from hubmerge.report.report import RunReport, StepReport
from hubmerge.run.run_context import RunContext
from hubmerge.run.stored_heads import fetch_head
from hubmerge.stream.open_source import open_source, resolve_adapter
from hubmerge.support.files import write_text_atomic
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import HEADS_FOLDER, head_files


@dataclass(frozen=True)
class Heads:
    """The heads of a stream.

    Attributes:
        context: The run. If it prepares all data anew, no published head is used.
    """

    context: RunContext

    def keep(self, step: int, checkpoint: Checkpoint) -> str | None:
        """Keep the head of a checkpoint in the work folder.

        Returns:
            The SHA-256 of its description, None if the checkpoint has no head.
        """
        names = self.context.plan.heads.get(step)
        if names is None:
            names = find_head(self.context.base, checkpoint, selection_of(self.context.stream.recipe))
        return self._write(step, checkpoint, names) if names else None

    def write(self, report: RunReport, folder: Path) -> None:
        """Write the heads of all steps of a report into the folder of a merged model.

        Raises:
            CheckpointError: A head is not the one in the report.
        """
        for step in report.steps:
            if step.head is not None:
                self._find(step)
                (folder / HEADS_FOLDER).mkdir(exist_ok=True)
                for name in head_files(step.name):
                    shutil.copyfile(self._folder / name, folder / name)

    @property
    def _folder(self) -> Path:
        return self.context.cache

    def _write(self, step: int, checkpoint: Checkpoint, names: tuple[str, ...]) -> str:
        locked = self.context.stream.lock.models[step - 1]
        tensors, described = (self._folder / name for name in head_files(locked.name))
        write_head(checkpoint, names, tensors)
        facts = {
            "entry": locked.name,
            "model": str(locked.reference),
            "commit": locked.commit,
            **describe_head(checkpoint, names, self.context.plan.config),
            "tensors": sorted(names),
            "sha256": file_digest(tensors),
        }
        write_text_atomic(described, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        return file_digest(described)

    def _find(self, step: StepReport) -> None:
        """Have the head of a step in the work folder."""
        if self._is_kept(step):
            return
        published = not self.context.fresh_datasets and fetch_head(self.context.stream, step.name, self._folder)
        if published and self._is_kept(step):
            return
        source = resolve_adapter(self.context.stream.source(step.step))
        with open_source(source) as checkpoint:
            names = find_head(self.context.base, checkpoint, selection_of(self.context.stream.recipe))
            if names:
                self._write(step.step, checkpoint, names)
        if not self._is_kept(step):
            raise CheckpointError(
                f"the head of {step.name} is not the one in the report of step {step.step}",
                hint="merge the checkpoints anew into another target repo, with another --work-dir",
            )

    def _is_kept(self, step: StepReport) -> bool:
        tensors, described = (self._folder / name for name in head_files(step.name))
        if not (tensors.is_file() and described.is_file()) or file_digest(described) != step.head:
            return False
        facts = json.loads(described.read_text(encoding="utf-8"))
        return bool(facts["sha256"] == file_digest(tensors))
