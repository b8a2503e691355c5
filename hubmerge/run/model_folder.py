"""Files of a merged model beside its weights: auxiliary files of the base model, and config.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hubmerge.checkpoints import TensorSpec, open_checkpoint
from hubmerge.checkpoints.formats.layout import CONFIG_FILE, read_json_object
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.weight_names import WeightNames
from hubmerge.errors import CheckpointError, HubmergeError
from hubmerge.report.file_list import list_step_files
from hubmerge.report.report import RunReport
from hubmerge.stream.sources import local_auxiliary_files
from hubmerge.support.damage import set_aside
from hubmerge.support.names import CARD_FILE, REPORT_FILE

_WRITTEN_FILES = frozenset({CONFIG_FILE, CARD_FILE})
_QUANTIZATION_FILES = frozenset(
    {"quantize_config.json", "quant_config.json", "hf_quant_config.json", "quantization_config.json"}
)
"""Settings of quantized formats beside config.json, which inference servers read."""


def copy_auxiliary_files(base_folder: Path, folder: Path, *, quantized: bool = True) -> None:
    """Copy tokenizer, processor, generation, template, module and license files of the base model unchanged.

    Args:
        base_folder: Folder of the base model.
        folder: Folder of the merged model.
        quantized: False if the merged model has no quantized weights. Settings of quantized formats are not copied.
    """
    left_out = _WRITTEN_FILES if quantized else _WRITTEN_FILES | _QUANTIZATION_FILES
    for name in sorted(local_auxiliary_files(base_folder) - left_out):
        if not name.startswith("hubmerge."):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base_folder / name, folder / name)


def change_files(changed: Mapping[str, bytes | None], folder: Path) -> None:
    """Write the files of the tokenizer that differ from those of the base model.

    Args:
        changed: The files by name; None for a file of the base model that the merged model does not have.
        folder: Folder of the merged model.
    """
    for name, content in changed.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write config.json: the config of the plan, whose loading was checked, and nothing else."""
    (folder / CONFIG_FILE).write_text(
        json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n"
    )


def write_library_config(config: Mapping[str, Any], folder: Path, base_folder: Path, names: WeightNames) -> None:
    """Write the config of a model of another library than transformers.

    It is the base model's file, byte for byte, unless the plan changes it: the order of keys may mean something.

    Args:
        config: The config of the plan.
        folder: Folder of the merged model.
        base_folder: Folder of the base model.
        names: Names of the library's files.
    """
    original = base_folder / names.config_file
    origin = Origin(str(base_folder), file=names.config_file)
    if original.is_file() and read_json_object(original.read_bytes(), origin) == config:
        shutil.copyfile(original, folder / names.config_file)
    elif config:
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / names.config_file).write_text(text, encoding="utf-8", newline="\n")


def check_written(folder: Path, specs: Collection[TensorSpec]) -> None:
    """Check that the written weights have the planned names, dtypes and shapes.

    Raises:
        CheckpointError: A tensor differs from the plan.
    """
    with open_checkpoint(folder, "the merged model") as written:
        found = {info.spec for info in written.tensors.values()}
    if found != set(specs):
        differing = min(spec.name for spec in found ^ set(specs))
        raise CheckpointError(
            f"the merged model in {folder} does not match the plan: tensor {differing!r} differs",
            hint="check the disk, then run again with another --work-dir",
            file=str(folder),
            tensor=differing,
        )


def is_kept_model(folder: Path) -> bool:
    """Return True if the files of a merged model match the digests in its report; a damaged folder is set aside."""
    if not folder.is_dir():
        return False
    try:
        report = RunReport.from_json((folder / REPORT_FILE).read_text(encoding="utf-8"))
        found = list_step_files(folder)
        differing = sorted(
            name for name in {*found, *report.all_files} if found.get(name) != report.all_files.get(name)
        )
        broken = report.has_broken_seal or report.broken_digest() is not None
        problem = f"{REPORT_FILE} does not match its seal" if broken else "".join(differing[:1])
    except HubmergeError as error:
        problem = error.message
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        set_aside(folder, f"damaged: {problem}")
    return not problem
