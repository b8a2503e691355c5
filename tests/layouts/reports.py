"""Kinds of public bug reports that were imitated with small models, and what hubmerge does with each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One kind of report.

    Attributes:
        projects: the projects in whose public trackers it is reported.
        kind: what goes wrong there.
        verdict: what hubmerge does.
        test: the file and the function of the test that holds it.
    """

    projects: str
    kind: str
    verdict: str
    test: str


PLANNING, FORMATS = "tests/checkpoints/planning", "tests/checkpoints/formats"

REPORTS = (
    Report(
        "ZipIt",
        "means and variances of batch normalization are added up like weights; variances become negative",
        "averaged over the checkpoints; a negative variance is refused",
        "tests/run/test_statistics.py::test_a_stream_with_statistics_is_published_extended_and_verified",
    ),
    Report(
        "transformers",
        "a buffer is in the files of one version of the library and not in those of the next",
        "ignored or kept, never a reason to refuse",
        f"{PLANNING}/test_buffers.py::test_a_cache_in_some_files_only_is_no_reason_to_refuse",
    ),
    Report(
        "unsloth, transformers, mlx-lm",
        "a quantization_config stays in the config although the weights are plain; the model does not load",
        "left out of the merged model",
        f"{PLANNING}/test_published_config.py::test_settings_of_quantized_formats_over_plain_weights_are_left_out",
    ),
    Report(
        "mergekit, transformers",
        "lm_head is tied to the embeddings in one model and not in another",
        "decided in plan for all models; merged as untied, or refused",
        f"{PLANNING}/test_tying.py::test_every_mix_of_tied_and_untied_models_is_merged_as_transformers_loads_them",
    ),
    Report(
        "VLM_Merging, mergekit, unsloth-zoo",
        "a text model is merged into the language model inside a vision-language model, whose names have a prefix",
        "matched through the class of the base model; the other parts are kept",
        "tests/checkpoints/matching/test_parts.py::test_text_models_are_merged_into_the_language_model_inside",
    ),
    Report(
        "Qwen3-VL",
        "a LoRA of a text model is applied to the vision-language model that holds it",
        "changes the language model inside",
        "tests/checkpoints/matching/test_parts.py::test_adapters_of_a_text_model_change_the_language_model_inside",
    ),
    Report(
        "mergekit",
        "the files have a layer for multi-token prediction that the config does not count",
        "kept from the base model if a checkpoint lacks it, with a line in plan",
        f"{PLANNING}/test_spare_tensors.py::test_layers_for_prediction_may_be_in_some_files_only",
    ),
    Report(
        "peft",
        "LoRA on one of two tied tensors changes both, or only one",
        "as peft applies it",
        "tests/checkpoints/adapters/test_tied_adapters.py::test_changes_under_any_name_of_a_tied_tensor_are_added_up",
    ),
    Report(
        "verl, unsloth",
        "a tensor is in two shards, or in none that the index names",
        "read as transformers reads it, with a note in plan",
        "tests/checkpoints/test_shards.py::test_tensors_that_the_index_does_not_list_as_they_are",
    ),
    Report(
        "transformers, mergekit",
        "shards without an index, or with other names",
        "the index decides; without one, refused with the way to save the model",
        f"{FORMATS}/test_select_files.py::test_weights_with_other_names_are_refused_with_a_hint",
    ),
    Report(
        "mergekit, diffusers",
        "the weights are a variant (fp16), or in a folder of a pipeline",
        "read and written under the same names",
        "tests/layouts/test_library_files.py::test_files_keep_their_names_metadata_and_config",
    ),
    Report(
        "mergekit",
        "the repo has only consolidated.safetensors",
        "read and written as such",
        "tests/layouts/test_library_files.py::test_files_keep_their_names_metadata_and_config",
    ),
    Report(
        "timm",
        "two heads have the same number of classes, and other classes",
        "refused unless a rule decides",
        f"{PLANNING}/test_class_names.py::test_heads_of_timm_for_other_classes_of_one_number_are_refused",
    ),
    Report(
        "timm, open_clip",
        "the merged model has the names of transformers' files, and the library does not load it",
        "written as the library reads it; loaded in a test",
        "tests/layouts/test_real_libraries.py::test_timm_and_open_clip_load_merged_models",
    ),
    Report(
        "diffusers",
        "a LoRA of a pipeline has changes for several models, in older and newer names",
        "the changes of the merged model are applied, as diffusers applies them",
        "tests/layouts/test_pipeline_adapters.py::test_an_adapter_saved_by_a_pipeline",
    ),
    Report(
        "transformers",
        "fine-tunes of one encoder have heads of their own, and the base model has none",
        "the body is merged, each head is published beside it",
        "tests/layouts/test_heads.py::test_the_body_is_merged_and_each_head_is_published",
    ),
    Report(
        "sentence-transformers",
        "the merged encoder lacks its modules and pooling",
        "copied, listed in the card; loaded in a test",
        "tests/layouts/test_sentence_transformers.py::test_sentence_transformers_loads_the_merged_model",
    ),
)
