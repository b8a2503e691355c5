"""Facts of a card that are not in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hubmerge.cards.data import CARD_FORM
from hubmerge.cards.loading import ZERO_SHOT
from hubmerge.cards.metadata import pipeline_tag_of
from hubmerge.cards.parts import HeadFacts, ModuleFacts
from hubmerge.report.licenses import NO_LICENSE, License
from hubmerge.report.report import TaskReport
from hubmerge.support.names import PICTURE_FILE

OLDER_TEXT_KINDS = frozenset({"text-classification", "causal-lm"})
"""Kinds of task with texts that cards up to form 7 know."""

TEXT_KINDS = OLDER_TEXT_KINDS | {
    "zero-shot-text-classification",
    "sentence-similarity",
    "text-retrieval",
    "lm-eval",
    "generation",
}
"""Kinds of task whose models have a tokenizer."""

ABRIDGED = 3
"""First form of cards that show the first and last steps of long streams alone."""

ORDERED_FOR_READERS = 6
"""First form of cards that begin with scores, picture and use, and fold what few people read."""

WITH_PAGE = 7
"""First form of cards that link the report as a page."""

WITH_ALL_TEXT_KINDS = 8
"""First form of cards that know all kinds of task with texts."""

WITHOUT_TAKEN_OUT = 9
"""First form of cards whose means leave out the tasks of entries that were taken out."""

LONGEST_RECIPE = 16_000
"""Number of characters up to which a card contains the recipe."""


@dataclass(frozen=True)
class CardDetails:
    """Facts of a card that are not in the report.

    Attributes:
        recipe_text: the text of the recipe.
        repo: the repo that the model is published to, None for a folder on this machine.
        license: the license of the model.
        notice: True if the file NOTICE lists the licenses of the inputs.
        tags: more tags for the Hub.
        library: the library that loads the model; None if there are several.
        variant: the variant in the names of the weight files, such as "fp16".
        heads: the heads of the checkpoints.
        modules: the modules of sentence-transformers.
        model_class: the class of the model.
        processor_class: the transformers class of its processor; None for a tokenizer or nothing.
        pipeline_tag: the kind of task of the model, None to take it from the scored tasks.
        layout: class, tensor names and dtypes of the weight files, in words.
        picture: the file with the picture of the accuracy matrix, None if there is none.
        page: the file with the report as a page, None if there is none.
        every_step: True if earlier steps are published too.
        method_source: the description of the method, such as "arXiv:2501.09522, Section 4".
        distributions: the distribution of each merge method and task kind that is a plug-in, by its name.
        revocable: True if the method can take checkpoints out again.
        chat_template: the chat template that the recipe asks for, in words; None for that of the tokenizer.
        form: the form of the data: an older one for comparison with a card of that form.
    """

    recipe_text: str
    repo: str | None = None
    license: License = NO_LICENSE
    notice: bool = False
    tags: tuple[str, ...] = ()
    library: str | None = "transformers"
    variant: str | None = None
    heads: tuple[HeadFacts, ...] = ()
    modules: tuple[ModuleFacts, ...] = ()
    model_class: str = "AutoModel"
    processor_class: str | None = "AutoProcessor"
    pipeline_tag: str | None = None
    layout: str | None = None
    picture: str | None = PICTURE_FILE
    page: str | None = None
    every_step: bool = True
    method_source: str | None = None
    distributions: Mapping[str, str] = field(default_factory=dict)
    revocable: bool = False
    chat_template: str | None = None
    form: int = CARD_FORM

    @property
    def whole(self) -> bool:
        """True for all steps and tasks, as in cards before form 3, however many there are."""
        return self.form < ABRIDGED

    @property
    def counts_all(self) -> bool:
        """True for means over all tasks, also those of entries that were taken out."""
        return self.form < WITHOUT_TAKEN_OUT

    def for_tasks(self, tasks: list[TaskReport]) -> CardDetails:
        """Return the details with the pipeline tag and the tokenizer that the scored tasks imply."""
        kinds = {task.kind for task in tasks}
        text_kinds = TEXT_KINDS if self.form >= WITH_ALL_TEXT_KINDS else OLDER_TEXT_KINDS
        found = self
        if self.form >= WITH_ALL_TEXT_KINDS and kinds and kinds <= TEXT_KINDS:
            embeds = self.library == "sentence-transformers"
            found = replace(found, pipeline_tag=None if embeds else pipeline_tag_of(kinds))
        if found.pipeline_tag in found.distributions:  # the Hub does not know the kinds of plug-ins
            found = replace(found, pipeline_tag=None)
        if found.pipeline_tag is None and found.library == "sentence-transformers":
            found = replace(found, pipeline_tag="sentence-similarity")
        if found.pipeline_tag is None and kinds == {ZERO_SHOT}:
            found = replace(found, pipeline_tag=ZERO_SHOT)
        if found.processor_class is None and kinds and kinds <= text_kinds:
            found = replace(found, processor_class="AutoTokenizer")
        return found
