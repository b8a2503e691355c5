"""Section of a card on how the model is loaded, with code for its library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubmerge.cards.markup import block, code
from merge_recipes import InvalidReferenceError, ModelReference
from merge_recipes.references import is_commit

ZERO_SHOT = "zero-shot-image-classification"


@dataclass(frozen=True)
class Loading:
    """Facts that the code for loading needs.

    Attributes:
        library: the library that loads the model; None if there are several.
        repo: the repo of the model, None for a folder on this machine.
        tag: the tag of the step.
        model_class: the class of the model.
        processor_class: the class of its processor or tokenizer, None if it has none.
        variant: the variant in the names of the weight files, None if they have none.
        pipeline_tag: the kind of task, None if unknown.
        base: the reference of the base model.
        base_commit: its commit.
    """

    library: str | None
    repo: str | None
    tag: str
    model_class: str
    processor_class: str | None
    variant: str | None
    pipeline_tag: str | None
    base: str
    base_commit: str

    @property
    def where(self) -> str:
        """The arguments of `from_pretrained`."""
        found = f'"{self.repo}", revision="{self.tag}"' if self.repo else '"path/to/this/folder"'
        return found if self.variant is None else f'{found}, variant="{self.variant}"'

    @property
    def folder_lines(self) -> list[str]:
        """Lines that set `folder` to a folder on this machine."""
        if self.repo is None:
            return ['folder = "path/to/this/folder"']
        return [f'folder = snapshot_download("{self.repo}", revision="{self.tag}")']

    @property
    def folder_imports(self) -> list[str]:
        """The import that `folder_lines` needs."""
        return ["from huggingface_hub import snapshot_download"] if self.repo else []


def loading_text(facts: Loading) -> str:
    """Return the code that loads a model in its library, with the text around it."""
    return _WRITERS.get(facts.library, _plain_tensors)(facts)


def _python(*lines: str) -> str:
    return block("\n".join(lines), "python")


def _transformers(facts: Loading) -> str:
    model_class, processor_class = facts.model_class, facts.processor_class
    classes = [model_class, *([processor_class] if processor_class else [])]
    lines = [f"from transformers import {', '.join(sorted(classes))}", ""]
    lines.append(f"model = {model_class}.from_pretrained({facts.where})")
    if processor_class:
        name = "tokenizer" if processor_class.endswith("Tokenizer") else "processor"
        where = facts.where.partition(", variant=")[0]
        lines.append(f"{name} = {processor_class}.from_pretrained({where})")
    text = _python(*lines)
    if facts.pipeline_tag == ZERO_SHOT and model_class == "CLIPModel":
        text += "\n\nOr with a pipeline:\n\n" + _python(
            "from transformers import pipeline",
            "",
            f'classify = pipeline("{ZERO_SHOT}", model={facts.where})',
            'classify("photo.jpg", candidate_labels=["a photo of a cat", "a photo of a dog"])',
        )
    return text


def _diffusers(facts: Loading) -> str:
    text = _python(
        f"from diffusers import {facts.model_class}",
        "",
        f"model = {facts.model_class}.from_pretrained({facts.where})",
    )
    base = _parsed(facts.base)
    if base is None or base.is_local or base.subfolder is None:
        return text
    part = base.subfolder.rpartition("/")[2]
    if not part.isidentifier():
        return text
    revision = f', revision="{facts.base_commit}"' if is_commit(facts.base_commit) else ""
    return f"{text}\n\nIn the pipeline of the base model, it is {code(part)}:\n\n" + _python(
        "from diffusers import DiffusionPipeline",
        "",
        f'pipeline = DiffusionPipeline.from_pretrained("{base.path}"{revision}, {part}=model)',
    )


def _sentence_transformers(facts: Loading) -> str:
    return _python(
        "from sentence_transformers import SentenceTransformer",
        "",
        f"model = SentenceTransformer({facts.where})",
        'embeddings = model.encode(["a sentence", "another sentence"])',
    )


def _timm(facts: Loading) -> str:
    where = f"hf-hub:{facts.repo}@{facts.tag}" if facts.repo else "local-dir:path/to/this/folder"
    return _python("import timm", "", f'model = timm.create_model("{where}", pretrained=True)')


def _open_clip(facts: Loading) -> str:
    return _python(
        "import open_clip",
        *facts.folder_imports,
        "",
        *facts.folder_lines,
        'model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")',
        'tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")',
    )


def _plain_tensors(facts: Loading) -> str:
    return "The weights have the names of the model's original files:\n\n" + _python(
        "from pathlib import Path",
        "",
        *facts.folder_imports,
        "from safetensors.torch import load_file",
        "",
        *facts.folder_lines,
        "tensors = {}",
        'for file in sorted(Path(folder).glob("consolidated*.safetensors")):',
        "    tensors |= load_file(file)",
    )


def _parsed(reference: str) -> ModelReference | None:
    try:
        return ModelReference.parse(reference)
    except InvalidReferenceError:
        return None


_WRITERS: dict[str | None, Callable[[Loading], str]] = {
    "transformers": _transformers,
    "diffusers": _diffusers,
    "sentence-transformers": _sentence_transformers,
    "timm": _timm,
    "open_clip": _open_clip,
}
