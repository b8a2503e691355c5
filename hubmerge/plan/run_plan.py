"""Plan of a run, from headers alone: steps, downloads, merged and kept tensors, disk and memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from hubmerge.checkpoints import MergePlan
from hubmerge.checkpoints.matching.alignment import Alignment
from hubmerge.checkpoints.stacking.assembly import Assembly
from hubmerge.plan import budget
from hubmerge.plan.checked_task import CheckedTask
from hubmerge.plan.layout_text import written_layout
from hubmerge.plan.licenses import NO_LICENSES, PlannedLicenses
from hubmerge.plan.stacking import StackedRow, stacked_rows
from hubmerge.plan.vocabulary import PlannedVocabulary
from hubmerge.plan.vocabulary_text import vocabulary_dict
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.weight_choice import WEIGHT_FILES, WeightChoice

CHECKPOINTS_AT_ONCE = 4
"""Number of checkpoints on disk at most: one is fetched, one merged, two are finished."""

FLOPS_PER_SECOND = 40e9
"""Speed of one core in float64 matrix products on a usual machine; good enough for an estimate."""


@dataclass(frozen=True)
class PlannedSource:
    """A model that the run reads.

    Attributes:
        name: Name of the entry, or "base model".
        source: The model.
        total_bytes: Size of its files.
        missing_bytes: Size of the files that have to be downloaded.
        auxiliary_bytes: Size of the files that are not weights.
    """

    name: str
    source: Source
    total_bytes: int
    missing_bytes: int
    auxiliary_bytes: int = 0


@dataclass(frozen=True)
class RunPlan:
    """Plan of the missing steps of a stream.

    Attributes:
        stream: The stream.
        first_step: First missing step.
        merge: The merged and the kept tensors.
        written: The tensors of `merge` that the files of the merged model contain.
        config: The config.json of the merged model, as it is written.
        quantized: True if the merged model keeps quantized tensors of the base model.
        sources: The base model, then the checkpoint of every entry.
        alignments: Places of the tensors of each missing checkpoint in the base model, by number of its entry.
        ignored: Tensors of the checkpoints that are not merged, with reasons.
        loading: Notes on how the merged model loads.
        older_shards: True if the weight files are those that version 0.1.0 wrote, see `plan_shards`.
        licenses: Licenses of the inputs and of the merged model.
        tasks: The tasks with their datasets, as far as they were opened.
        heads: By missing step, the tensors of the checkpoint's own head, which are kept beside the merged model.
        warnings: Merged entries that lie far off the others.
        in_pieces: True if the files of the base model and of all missing checkpoints can be read in pieces.
        notes: Sentences for the user: what the run does not check, and what it replaces in the target repo.
        weight_files: The weight files that are read, and those that are not, of the base model and each missing
            checkpoint.
        vocabulary: The vocabulary of the merged model, None for that of the base model.
        tokenizer_files: Files of the merged model beside the weights that differ from those of the base model; None
            for a file of the base model that is not copied.
        other_tokens: By number of an entry, a warning that its rows belong to other tokens than the base model's.
        assembly: Places of the layers if the recipe stacks some; None if the models are merged whole. `alignments` are
            then those of the first sources of all slices, of the second ones, and so on.
        stages: Plans of the stages, whose merged models the steps use.
    """

    stream: Stream
    first_step: int
    merge: MergePlan
    written: MergePlan
    config: Mapping[str, Any]
    quantized: bool
    sources: tuple[PlannedSource, ...]
    alignments: Mapping[int, Alignment]
    ignored: tuple[str, ...]
    loading: tuple[str, ...]
    older_shards: bool = False
    licenses: PlannedLicenses = NO_LICENSES
    tasks: tuple[CheckedTask, ...] = ()
    heads: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    in_pieces: bool = False
    notes: tuple[str, ...] = ()
    weight_files: Mapping[str, WeightChoice] = field(default_factory=dict)
    vocabulary: PlannedVocabulary | None = None
    tokenizer_files: Mapping[str, bytes | None] = field(default_factory=dict)
    other_tokens: Mapping[int, str] = field(default_factory=dict)
    assembly: Assembly | None = None
    stages: tuple[RunPlan, ...] = ()

    @property
    def layouts(self) -> dict[str, str]:
        """Difference between the tensor names of each missing checkpoint and the base model, in words."""
        if self.assembly is not None:
            return {}
        return {self.stream.entries[step - 1].name: aligned.layout for step, aligned in self.alignments.items()}

    @property
    def warnings_by_entry(self) -> dict[int, tuple[str, ...]]:
        """Sentences on the models for the report, by number of their entries; those of the base model by 0."""
        found: dict[int, tuple[str, ...]] = {entry: (text,) for entry, text in self.other_tokens.items()}
        numbers = {"base model": 0} | {entry.name: number for number, entry in enumerate(self.stream.entries, start=1)}
        for name, choice in self.weight_files.items():
            if choice.has_others:
                text = f"{WEIGHT_FILES}{choice.text}"
                found[numbers[name]] = (*found.get(numbers[name], ()), text)
        return found

    @property
    def stacked(self) -> tuple[StackedRow, ...]:
        """The slices of a recipe that stacks layers."""
        return stacked_rows(self.stream, self.assembly)

    @property
    def layout_written(self) -> str:
        """Class, tensor names and dtypes of the merged model's files, in words."""
        return written_layout(self.config, {spec.name: spec for spec in self.written.specs})

    @property
    def download_bytes(self) -> int:
        """Size of the downloads from the Hub."""
        if not self.steps:
            return 0
        return sum(source.missing_bytes for source in self.sources) + sum(one.download_bytes for one in self.stages)

    @property
    def work_bytes(self) -> int:
        """Peak size of states, merged models and partial downloads in the work folder."""
        if not self.steps:
            return 0
        model = self.written.written_bytes + self.sources[0].auxiliary_bytes
        downloads = any(source.missing_bytes for source in self.sources[1:])
        kept = budget.work_bytes(
            self.stream, self.merge, self.steps, state=self.state_bytes, model=model, downloads=downloads
        )
        return kept + self._partial_bytes + sum(stage.work_bytes for stage in self.stages)

    @property
    def state_bytes(self) -> int:
        """Size of the last state, 0 for a merge without one."""
        return 0 if self.stream.is_joint else budget.state_bytes(self.stream, self.merge)

    @property
    def memory_bytes(self) -> int:
        """Approximate peak memory of the run, 0 if no step is missing."""
        if not self.steps:
            return 0
        vocabulary = 0 if self.vocabulary is None else self.vocabulary.memory_bytes
        own = vocabulary + budget.memory_bytes(self.stream, self.merge, in_pieces=self.in_pieces)
        return max(own, *(stage.memory_bytes for stage in self.stages), 0)

    @property
    def cache_bytes(self) -> int:
        """Size of the downloads into the Hub cache."""
        return self.sources[0].missing_bytes if self._by_ranges and self.steps else self.download_bytes

    @property
    def _by_ranges(self) -> bool:
        return self.stream.recipe.fetch == "ranges"

    @property
    def _partial_bytes(self) -> int:
        missing = sorted((source.missing_bytes for source in self.sources[1:]), reverse=True)
        return sum(missing[:CHECKPOINTS_AT_ONCE]) if self._by_ranges else 0

    @property
    def steps(self) -> range:
        """The missing steps."""
        return range(self.first_step, self.stream.length + 1)

    @property
    def estimated_seconds(self) -> float:
        """Rough duration of the merge on one core, without downloads and evaluation."""
        own = len(self.steps) * self.counted_seconds
        return own + sum(stage.estimated_seconds for stage in self.stages)

    @property
    def counted_seconds(self) -> float:
        """Duration of one step on one core, from the number of operations and the passes over the state."""
        return self.merge.flops_per_step / FLOPS_PER_SECOND + 4 * self.merge.state_bytes / 1e9

    def _models(self, entries: Iterable[int]) -> list[dict[str, Any]]:
        pairs = [(self.stream.entries[entry - 1], self.stream.lock.models[entry - 1]) for entry in entries]
        return [
            {"step": step, "name": entry.name, "reference": str(entry.model), "commit": locked.commit}
            for step, (entry, locked) in enumerate(pairs, start=1)
        ]

    def _joint_steps(self) -> list[dict[str, Any]]:
        """Return one mapping for each step, with all its models."""
        found = []
        for step in range(1, self.stream.length + 1):
            models = [
                {key: value for key, value in model.items() if key != "step"}
                for model in self._models(self.stream.entries_of(step))
            ]
            last = models[-1]
            found.append({**last, "step": step, "name": self.stream.step_name(step), "models": models})
        return found

    def missing_bytes_of(self, step: int) -> int:
        """Return the size of the files of a step's models that have to be downloaded."""
        return sum(self.sources[entry].missing_bytes for entry in self.stream.entries_of(step))

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "base_model": {
                "reference": str(self.stream.lock.base_model.reference),
                "commit": self.stream.lock.base_model.commit,
            },
            "merge_method": self.stream.recipe.merge_method,
            "first_step": self.first_step,
            "steps": self._joint_steps() if self.stream.is_joint else self._models(range(1, self.stream.length + 1)),
            "download_bytes": self.download_bytes,
            "work_bytes": self.work_bytes,
            "memory_bytes": self.memory_bytes,
            "state_bytes": self.state_bytes,
            "state_dtype": self.stream.recipe.state_dtype,
            "model_bytes": self.written.written_bytes,
            "weight_matrices": self.merge.counts["merge-matrix"],
            "other_tensors": self.merge.counts["merge-other"],
            "averaged": [tensor.name for tensor in self.merge.averaged],
            "statistics_rule": self.merge.statistics_rule,
            "part": self.merge.part,
            "kept": {tensor.name: tensor.reason for tensor in self.merge.kept},
            "ignored": list(self.ignored),
            "layers": [asdict(row) for row in self.stacked],
            "layout_written": self.layout_written,
            "layouts": self.layouts,
            "weight_files": [{"model": name, **choice.to_dict()} for name, choice in self.weight_files.items()],
            "loading": list(self.loading),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "licenses": self.licenses.to_dict(),
            "tasks": [asdict(task) for task in self.tasks],
            "tokenizer": vocabulary_dict(self.vocabulary),
            "other_tokens": list(self.other_tokens.values()),
            "how_matrices_were_told": self.merge.matrix_rule,
            "estimated_seconds": round(self.estimated_seconds, 1),
            **({"stages": [self._stage(stage) for stage in self.stages]} if self.stages else {}),
        }

    @staticmethod
    def _stage(stage: RunPlan) -> dict[str, Any]:
        """Return the plan of a stage as plain JSON values, with its name."""
        return {"name": stage.stream.loaded.stage, "digest": stage.stream.chain[-1], **stage.to_dict()}
