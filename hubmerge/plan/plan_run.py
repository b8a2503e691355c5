"""Planning of a run: headers are read, nothing on this machine or on the Hub changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType

from hubmerge.checkpoints import (
    AdaptedCheckpoint,
    AlignedCheckpoint,
    AlignedModels,
    Checkpoint,
    MatrixRule,
    MergePlan,
    PublishedConfig,
    align_models,
    check_config,
    check_loads,
    make_plan,
    published_config,
    uses_older_shards,
    written_names,
)
from hubmerge.checkpoints.planning.other_libraries import check_loads_in
from hubmerge.checkpoints.stacking.assembly import Assembly
from hubmerge.errors import CheckpointError
from hubmerge.evaluation import METRIC_NAMES
from hubmerge.evaluation.external_metrics import check_external_metrics
from hubmerge.plan.headers import Headers, read_headers, stacked_headers
from hubmerge.plan.ignored_text import ignored_lines
from hubmerge.plan.new_commit_hint import new_commits_named
from hubmerge.plan.run_plan import PlannedSource, RunPlan
from hubmerge.plan.settings import max_shard_bytes, out_dtype, selection_of
from hubmerge.plan.stacking import check_kinds, stack_layers
from hubmerge.plan.tokenizer_files import changed_files
from hubmerge.plan.vocabulary_check import find_other_tokens
from hubmerge.report.outliers import recorded_outliers
from hubmerge.report.report import RunReport
from hubmerge.stream.open_source import fetched_sources, is_fetched_partially
from hubmerge.stream.sources import Source, cached_bytes, files_of
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from hubmerge.support.text import counted, listed
from merge_recipes import Recipe

_WEIGHTS = (".safetensors", ".bin", ".pth")


def plan_steps(
    stream: Stream,
    first_step: int,
    progress: Progress,
    *,
    recorded: RunReport | None = None,
    opened: Mapping[int, Checkpoint] = MappingProxyType({}),
) -> RunPlan:
    """Read the headers of the base model and of the missing checkpoints, and plan their merge.

    Args:
        stream: The stream.
        first_step: First missing step. If no step is missing, the plan describes the last one.
        progress: Receiver of stages.
        recorded: Report of the steps that are published or on disk. Its rules for statistics and shards are kept.
        opened: Checkpoints by step whose sources are not asked for.

    Raises:
        CheckpointError: Tensor names or shapes of a checkpoint do not fit the base model.
        HubError: A file is missing, or may not be read.
        EvaluationError: A metric runs code that is not trusted.
    """
    _check_metrics(stream.recipe)
    entries = stream.planned_entries(range(min(first_step, stream.length), stream.length + 1))
    as_weights = recorded is not None and recorded.adds_up_statistics
    with new_commits_named(stream):
        headers = read_headers(stream, entries, progress, opened, as_weights=as_weights)
        return _run_plan(stream, first_step, headers, recorded)


def _run_plan(stream: Stream, first_step: int, headers: Headers, recorded: RunReport | None) -> RunPlan:
    """Plan the merge of the opened checkpoints, its files, and how the merged model loads."""
    recipe, dtype = stream.recipe, out_dtype(stream.recipe)
    whole, assembly = headers, stack_layers(stream, headers.base, headers.opened)
    if assembly is not None:
        headers = stacked_headers(headers, assembly)
    models, merge = _planned_merge(headers, recipe, recorded)
    base, aligned = models.base, dict(zip(headers.opened, models.aligned, strict=True))
    written, original = _written_tensors(recipe, merge, base, models.aligned[0])
    check_config(original.config, base.tensors, original.origin)
    published = published_config(original, written.tensors, dtype)
    notes = [*whole.notes, *models.notes, *_statistics_notes(headers.rule, merge), *published.notes]
    notes += _kept_modules(stream.base)
    files, file_notes = changed_files(stream, whole.vocabulary)
    notes += [*file_notes, *(whole.vocabulary.notes if whole.vocabulary is not None else ())]
    if assembly is not None:
        notes += assembly.notes
        check_kinds(published.content, {one.name: one.shape for one in written.tensors}, whole.base)
    return RunPlan(
        stream=stream,
        first_step=first_step,
        merge=merge,
        written=written,
        config=published.content,
        quantized=published.quantized,
        sources=tuple(_planned_sources(stream, whole, aligned, merge, assembly)),
        alignments={step: checkpoint.alignment for step, checkpoint in aligned.items()},
        ignored=tuple(ignored_lines(models.aligned)),
        older_shards=recorded is not None and _uses_older_shards(recorded, written, base, recipe),
        in_pieces=all(map(_reads_in_pieces, (whole.base, *whole.opened.values()))),
        heads={step: names for step, names in headers.heads.items() if names},
        weight_files={_name_of(stream, number): choice for number, choice in whole.choices.items()},
        vocabulary=whole.vocabulary,
        tokenizer_files=files,
        other_tokens=find_other_tokens(stream, whole, merge),
        assembly=assembly,
        loading=(*notes, *_check_loads(published, written, original, whole=original is base)),
        notes=tuple(_unchecked_ranges(stream, whole.sources)),
        warnings=() if recorded is None else tuple(recorded_outliers(recorded)),
    )


def _name_of(stream: Stream, number: int) -> str:
    return stream.entries[number - 1].name if number else "base model"


def _unchecked_ranges(stream: Stream, sources: Mapping[int, Source]) -> Iterator[str]:
    """Yield one sentence if files are not fetched whole: the Hub lists digests of whole files alone."""
    parts = [number for number, one in sources.items() if is_fetched_partially(one, files_of(one))]
    if stream.recipe.fetch == "ranges" and parts:
        yield (
            f"fetch: ranges: the files of {counted(len(parts), 'checkpoint')} are not compared with their digests on "
            "the Hub, which cover whole files; `hubmerge verify` reads and compares them"
        )


def _planned_merge(headers: Headers, recipe: Recipe, recorded: RunReport | None) -> tuple[AlignedModels, MergePlan]:
    """Align the checkpoints and plan their merge, with the decision of the recorded steps on tied tensors."""

    def planned(*, untied: bool | None = None) -> tuple[AlignedModels, MergePlan]:
        opened, selection = tuple(headers.opened.values()), selection_of(recipe)
        models = align_models(headers.base, headers.rule, opened, selection=selection, untied=untied, own_heads=True)
        plan = make_plan(models.base, models.aligned, models.rule, selection=selection, out_dtype=out_dtype(recipe))
        return models, plan

    models, plan = planned()
    if recorded is None or not recorded.steps or len(plan.merged) == recorded.steps[-1].tensors.merged:
        return models, plan
    other = planned(untied=not models.untied)
    return other if len(other[1].merged) == recorded.steps[-1].tensors.merged else (models, plan)


def _reads_in_pieces(model: Checkpoint) -> bool:
    """Return True for safetensors without an adapter, whose tensors are never in memory whole."""
    return not isinstance(model, AdaptedCheckpoint) and all(file.endswith(".safetensors") for file in model.files)


def _statistics_notes(rule: MatrixRule, merge: MergePlan) -> Iterator[str]:
    """Yield a note if statistics are added up like weights, because the steps so far did."""
    if rule.buffers.as_weights and any(tensor.never_negative for tensor in merge.merged):
        yield (
            "statistics such as running_var are added up like weights, as in the steps that version 0.1.0 merged; to "
            "average them, merge the checkpoints anew into another target repo"
        )


def _uses_older_shards(recorded: RunReport, written: MergePlan, base: Checkpoint, recipe: Recipe) -> bool:
    """Return True if the last recorded model has the weight files that version 0.1.0 wrote."""
    files = next((step.files for step in reversed(recorded.steps) if step.files), None)
    kept = {tensor.name for tensor in written.tensors if tensor.copied}
    names, most = written_names(base, written.tensors), max_shard_bytes(recipe)
    return files is not None and uses_older_shards(files, written.specs, most, kept=kept, names=names)


def _check_metrics(recipe: Recipe) -> None:
    tasks = recipe.evaluate.tasks if recipe.evaluate is not None else ()
    check_external_metrics(name for task in tasks for name in task.metrics if name not in METRIC_NAMES)


def _planned_sources(
    stream: Stream,
    headers: Headers,
    aligned: Mapping[int, AlignedCheckpoint],
    merge: MergePlan,
    assembly: Assembly | None,
) -> Iterator[PlannedSource]:
    yield _planned_source("base model", stream.base, auxiliary=True)
    for step, entry in enumerate(stream.entries, start=1):
        source = headers.sources.get(step)
        if source is None:
            yield PlannedSource(entry.name, stream.source(step), 0, 0)
            continue
        planned = _planned_source(entry.name, source)
        if stream.recipe.fetch != "ranges":
            yield planned
        elif assembly is not None:
            yield _tensors_only(planned, headers.opened[step], assembly.needed(step))
        else:
            yield _tensors_only(planned, aligned[step], [tensor.name for tensor in merge.merged])


def _planned_source(name: str, source: Source, *, auxiliary: bool = False) -> PlannedSource:
    total = missing = auxiliary_bytes = 0
    for part in fetched_sources(source):
        # The base model is counted once, not again for each of its adapters.
        if part != source.base:
            files = files_of(part, auxiliary=auxiliary)
            size = sum(file.size for file in files)
            total += size
            missing += 0 if part.is_local else size - cached_bytes(part, files)
            auxiliary_bytes += sum(file.size for file in files if not file.path.endswith(_WEIGHTS))
    return PlannedSource(name, source, total, missing, auxiliary_bytes)


def _tensors_only(planned: PlannedSource, checkpoint: Checkpoint, names: Sequence[str]) -> PlannedSource:
    """Return a source of which only some tensors are fetched."""
    model = fetched_sources(planned.source)[0]
    if not is_fetched_partially(model, files_of(model)):
        return planned
    needed = sum(checkpoint.tensors[name].nbytes for name in names)
    return replace(planned, missing_bytes=min(planned.missing_bytes, needed))


def _written_tensors(
    recipe: Recipe, merge: MergePlan, base: Checkpoint, checkpoint: Checkpoint
) -> tuple[MergePlan, Checkpoint]:
    """Return the tensors of the merged model's files, and the model whose config.json fits them.

    These are all tensors of the base model, or with `publish: {model: tower}` the merged ones alone.
    """
    if recipe.publish is None or recipe.publish.model == "full":
        return merge, base
    if set(checkpoint.tensors) != {tensor.name for tensor in merge.merged}:
        raise CheckpointError(
            f"{checkpoint.label}: its tensors are not exactly the merged ones, so its config.json does not fit a tower "
            "with the merged tensors alone",
            hint="write `publish: {model: full}`",
        )
    return replace(merge, tensors=merge.merged, left_out=()), checkpoint


def _kept_modules(base: Source) -> Iterator[str]:
    """Yield a note on modules of sentence-transformers with weights of their own, which are copied and not merged."""
    names = (base.name_of(file) for file in files_of(base, auxiliary=True))
    weights = sorted(name for name in names if "/" in name and name.endswith(_WEIGHTS))
    if weights:
        yield f"not merged: the base model's {listed(weights)}, whatever the checkpoints have there"


def _check_loads(config: PublishedConfig, written: MergePlan, original: Checkpoint, *, whole: bool) -> tuple[str, ...]:
    """Check that the written model loads with the config that is written, and return notes on how it does."""
    if config.quantized:
        return ("loading of the merged model is not checked: it keeps quantized tensors of the base model",)
    shapes = {tensor.name: tensor.shape for tensor in written.tensors}
    stored = {name: info.shape for name, info in original.tensors.items()}
    if original.names.library != "transformers":
        names = original.names
        return check_loads_in(names.library, config.content, shapes, names.config_file, original.origin)
    try:
        return check_loads(config.content, shapes, stored, original.origin)
    except CheckpointError as error:
        if whole:
            raise
        raise CheckpointError(
            f"`publish: {{model: tower}}`: {error.message}",
            hint="write `publish: {model: full}`",
            **asdict(error.context),
        ) from error
