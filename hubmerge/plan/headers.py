"""Headers of the models of a plan: the base model and the checkpoints of the missing steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hubmerge.checkpoints import Checkpoint, MatrixRule, check_config, weight_matrices
from hubmerge.checkpoints.matching.causes import computation_notes
from hubmerge.checkpoints.planning.task_heads import find_head
from hubmerge.checkpoints.stacking.assembly import Assembly
from hubmerge.checkpoints.vocabulary.resized import VocabularyModels
from hubmerge.plan.settings import selection_of
from hubmerge.plan.vocabulary import PlannedVocabulary, plan_vocabulary
from hubmerge.stream.open_source import open_for_planning, resolve_adapter
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.weight_choice import WeightChoice, choice_notes, weight_choice
from hubmerge.support.progress import Progress


@dataclass(frozen=True)
class Headers:
    """The base model and, by number of their entries, the missing checkpoints, opened from headers."""

    base: Checkpoint
    rule: MatrixRule
    opened: Mapping[int, Checkpoint]
    sources: Mapping[int, Source]
    heads: Mapping[int, tuple[str, ...]]
    vocabulary: PlannedVocabulary | None = None
    choices: Mapping[int, WeightChoice] = field(default_factory=dict)  # of the base model by 0

    @property
    def notes(self) -> list[str]:
        """Sentences about unusual files of the checkpoints."""
        own = [note for checkpoint in (self.base, *self.opened.values()) for note in checkpoint.notes]
        models = {0: self.base, **self.opened}
        chosen = choice_notes((models[number].label, choice) for number, choice in self.choices.items())
        return [*own, *chosen, *computation_notes(self.base, self.opened.values())]


def read_headers(
    stream: Stream, entries: Sequence[int], progress: Progress, known: Mapping[int, Checkpoint], *, as_weights: bool
) -> Headers:
    """Open the base model and the missing checkpoints from their headers.

    Args:
        stream: the stream.
        entries: the numbers of the missing checkpoints.
        progress: the receiver of the stage.
        known: checkpoints by number that are open already.
        as_weights: True if statistics are added up like weights.

    Raises:
        CheckpointError: a header cannot be read.
        HubError: a file is missing, or may not be read.
    """
    with progress.stage("read headers", len(entries) + 1) as advance:
        base = open_for_planning(stream.base)
        check_config(base.config, base.tensors, base.origin)
        rule = weight_matrices(base.config, base.tensors)
        if as_weights:
            rule = replace(rule, buffers=rule.buffers.counted_as_weights(base.tensors))
        choices = {0: weight_choice(stream.base, base)}
        advance(1)
        opened, sources = {}, {}
        heads: dict[int, tuple[str, ...]] = {}
        for entry in entries:
            if entry in known:
                opened[entry], heads[entry] = known[entry], ()
                continue
            sources[entry] = resolve_adapter(stream.source(entry))
            opened[entry] = open_for_planning(sources[entry], base)
            choices[entry] = weight_choice(sources[entry], opened[entry])
            heads[entry] = find_head(base, opened[entry], selection_of(stream.recipe))
            advance(1)
    headers = Headers(base, rule, opened, sources, heads, choices=choices)
    vocabulary = plan_vocabulary(stream, base, opened, progress)
    return headers if vocabulary is None else _resized(headers, vocabulary)


def _resized(headers: Headers, vocabulary: PlannedVocabulary) -> Headers:
    """Return the headers of models that have the rows of the merged model's vocabulary."""
    models = VocabularyModels(vocabulary.resizing)
    opened = {entry: models.resized(vocabulary.numbers[entry], one) for entry, one in headers.opened.items()}
    base = models.resized(0, headers.base)
    rule = replace(weight_matrices(base.config, base.tensors), buffers=headers.rule.buffers)
    return replace(headers, base=base, rule=rule, opened=opened, vocabulary=vocabulary)


def stacked_headers(headers: Headers, assembly: Assembly) -> Headers:
    """Return the models of a merge that stacks layers: the first sources of all slices, the second ones, and so on."""
    models = {number: headers.opened.get(number, headers.base) for number in range(1, 1 + assembly.models)}
    base = assembly.base_of(headers.base, models)
    rule = weight_matrices(base.config, base.tensors)
    if headers.rule.buffers.as_weights:
        rule = replace(rule, buffers=rule.buffers.counted_as_weights(base.tensors))
    slots = dict(enumerate(assembly.slots_of(models), start=1))
    return replace(headers, base=base, rule=rule, opened=slots, heads={})
