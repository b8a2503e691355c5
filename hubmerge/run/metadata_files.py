"""Recipe, lock, report and card of a merged model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubmerge.cards.parts import HeadFacts, ModuleFacts
from hubmerge.checkpoints import Checkpoint, open_checkpoint
from hubmerge.checkpoints.checkpoint import first_architecture
from hubmerge.evaluation import task_kind_plugin
from hubmerge.methods import find_method, method_of
from hubmerge.plan.layout_text import written_layout
from hubmerge.plan.licenses import merged_license
from hubmerge.plan.settings import selection_of
from hubmerge.report.file_list import list_step_files
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import RunReport
from hubmerge.run.card_facts import heads_in, modules_in
from hubmerge.run.notice import write_notice
from hubmerge.run.page import write_page
from hubmerge.run.provenance_files import write_provenance_files
from hubmerge.run.run_context import RunContext
from hubmerge.stream.licenses import read_license
from hubmerge.stream.stream import Stream
from hubmerge.support.names import (
    CARD_FILE,
    LOCK_FILE,
    NOTICE_FILE,
    PAGE_FILE,
    PICTURE_FILE,
    RECIPE_FILE,
    REPORT_FILE,
)
from merge_recipes.tokenizer_text import template_text


@dataclass(frozen=True)
class ModelFiles:
    """Facts of a card about the files around it.

    Attributes:
        names: Names of the files.
        layout: Class, tensor names and dtypes of the weights, in words.
        model_class: Class of the model, None if the config names none.
        license: License of the model.
        notice: True if NOTICE lists the licenses of the inputs.
        library: Library that loads the model, None if there are several.
        variant: Variant in the names of the weight files, None if they have none.
        heads: Heads of the checkpoints beside the merged model.
        modules: Modules of sentence-transformers.
    """

    names: Collection[str]
    layout: str
    model_class: str | None
    license: License = NO_LICENSE
    notice: bool = False
    library: str | None = "transformers"
    variant: str | None = None
    heads: tuple[HeadFacts, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()

    @classmethod
    def of(
        cls, written: Checkpoint, stream: Stream, folder: Path, *, names: Collection[str], model_license: License
    ) -> ModelFiles:
        """Describe the files of a merged model, which are in `folder`."""
        library, modules = written.names.library, modules_in(folder)
        return cls(
            names,
            written_layout(written.config, written.tensors, selection_of(stream.recipe)),
            architecture_of(written.config),
            model_license,
            library="sentence-transformers" if modules and library == "transformers" else library,
            variant=written.names.variant,
            heads=heads_in(folder, [entry.name for entry in stream.entries]),
            modules=modules,
        )


def architecture_of(config: Mapping[str, Any]) -> str | None:
    """Return the class of transformers or diffusers that a config names, None if it names none."""
    first = first_architecture(config) or config.get("_class_name")
    return first if isinstance(first, str) and first.isidentifier() else None


def write_metadata_files(folder: Path, report: RunReport, context: RunContext) -> RunReport:
    """Write recipe, lock, report, page, card with picture, notices and provenance into the folder of a merged model.

    Args:
        folder: Folder of the merged model.
        report: Report of the run.
        context: The stream, its licenses, and the card in which people may have written.

    Returns:
        The report as written, with the list of all files.
    """
    from hubmerge.cards import added_metadata, license_of, merged_card, needs_notice  # they import matplotlib

    stream, publish = context.stream, context.stream.recipe.publish
    merged = license_of_step(report, stream)
    if context.writes_notice and needs_notice(report, merged):
        write_notice(folder / NOTICE_FILE, report, merged, context.licenses)
    with open_checkpoint(folder) as written:
        present = {path.name for path in folder.iterdir()}
        files = ModelFiles.of(written, stream, folder, names=present, model_license=merged)
    files = replace(files, notice=context.writes_notice and needs_notice(report, merged))
    generated = card_for(report, stream, stream.loaded.text, files)
    sets_license = publish is not None and bool(publish.license)
    (folder / CARD_FILE).write_text(
        merged_card(generated, context.card, sets_license=sets_license), encoding="utf-8", newline="\n"
    )
    _write_picture(folder, report)
    (folder / RECIPE_FILE).write_text(stream.loaded.text, encoding="utf-8", newline="\n")
    (folder / LOCK_FILE).write_text(stream.lock.to_yaml(), encoding="utf-8", newline="\n")
    write_page(folder, report, publish.repo if publish is not None else None)
    stated = license_of((folder / CARD_FILE).read_text(encoding="utf-8"))
    write_provenance_files(folder, report, stream, stated, files.model_class)
    report = replace(report, all_files=list_step_files(folder), kept_files=dict(context.others))
    report = replace(report, kept_metadata=added_metadata(generated, (folder / CARD_FILE).read_text(encoding="utf-8")))
    (folder / REPORT_FILE).write_text(report.to_json(), encoding="utf-8", newline="\n")
    return report


def _write_picture(folder: Path, report: RunReport) -> None:
    """Write the picture of the accuracy matrix, if there are scores; before form 3 it has all steps and tasks."""
    from hubmerge.cards import accuracy_picture

    whole = report.version < 3
    matrix = (report if whole else report.abridged()).accuracy_matrix()
    if matrix.steps:
        base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
        names = {step.step: step.name for step in report.steps}
        picture = accuracy_picture(matrix, base=base, own=own, names=names, whole=whole)
        (folder / PICTURE_FILE).write_bytes(picture)


def license_of_step(report: RunReport, stream: Stream) -> License:
    """Return the license of the merged model: that in the recipe, else that of the base model.

    Raises:
        HubError: The report has no licenses, and the card of the base model cannot be read.
    """
    recorded = report.base_model.licenses
    return merged_license(stream.recipe.publish, recorded[0] if recorded else read_license(stream.base), stream.base)


def card_for(report: RunReport, stream: Stream, recipe_text: str, files: ModelFiles, *, form: int | None = None) -> str:
    """Return the card of the last step of a report; with `form`, its data are those of an older form."""
    from hubmerge.cards import CARD_FORM, CardDetails, card_text

    publish, template = stream.recipe.publish, stream.recipe.chat_template
    kinds = {task.kind for task in report.tasks}
    whole = publish is None or publish.model == "full"
    details = CardDetails(
        recipe_text=recipe_text,
        repo=publish.repo if publish is not None else None,
        license=files.license,
        notice=files.notice,
        tags=tuple(publish.tags) if publish is not None else (),
        library=files.library,
        variant=files.variant,
        heads=files.heads,
        modules=files.modules,
        model_class=files.model_class or "AutoModel",
        layout=files.layout,
        processor_class="AutoProcessor" if "preprocessor_config.json" in files.names else None,
        pipeline_tag=kinds.pop() if whole and len(kinds) == 1 else None,
        picture=PICTURE_FILE if report.accuracy_matrix().steps else None,
        page=PAGE_FILE,
        every_step=publish is None or publish.steps == "every",
        method_source=method_of(stream.recipe).source,
        revocable=getattr(method_of(stream.recipe), "revokes", False) is True,
        distributions=plugin_distributions(report.merge_method, (task.kind for task in report.tasks)),
        chat_template=None if template is None else template_text(template),
        form=form or CARD_FORM,
    )
    return card_text(report, details)


def plugin_distributions(method: str, task_kinds: Iterable[str]) -> dict[str, str]:
    """Return the distribution of the method and of each task kind that is a plug-in, by name."""
    offered = {kind: plugin.distribution for kind in task_kinds if (plugin := task_kind_plugin(kind)) is not None}
    distribution = find_method(method).distribution
    return offered if distribution is None else {method: distribution, **offered}
