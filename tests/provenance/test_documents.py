"""Provenance statement and bill of materials of a step with every kind of input."""

from __future__ import annotations

import dataclasses
import json

from google.protobuf.json_format import Parse
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from hubmerge.provenance.bom import BomDetails, bom, bom_text
from hubmerge.provenance.pinned_inputs import pinned_inputs
from hubmerge.provenance.statement import statement
from hubmerge.report.file_list import FileRecord
from hubmerge.report.licenses import License
from hubmerge.report.report import ModelReport, RunReport, Scores, StepReport, TaskReport
from merge_recipes import Lock, LockedModel, ModelReference
from merge_recipes.lock import LockedDataset

COMMITS = [character * 40 for character in "abcdef0"]
LOCAL = f"sha256:{'1' * 64}"


def locked(name: str, reference: str, commit: str, adapter: str | None = None) -> LockedModel:
    return LockedModel(name=name, reference=ModelReference.parse(reference), commit=commit, adapter_commit=adapter)


LOCK = Lock(
    recipe=f"sha256:{'2' * 64}",
    base_model=locked("base", "me/base@main", COMMITS[0]),
    models=(
        locked("first", "me/first/sub/folder@v1+me/lora@v2", COMMITS[1], COMMITS[2]),
        locked("second", "./second", LOCAL),
        locked("again", "me/first", COMMITS[1]),
        locked("later", "me/later", COMMITS[3]),
    ),
    datasets=(
        LockedDataset(path="me/data", revision="v3", commit=COMMITS[4]),
        LockedDataset(path="me/data", name="subset", commit=COMMITS[4]),
        LockedDataset(path="./data", commit=LOCAL),
        LockedDataset(path="me/unused", commit=COMMITS[5]),
    ),
)


def report() -> RunReport:
    def step(number: int) -> StepReport:
        locked = LOCK.models[number - 1]
        licenses = (License(("mit",)), License(("cc-by-nc-4.0",))) if number == 1 else ()
        reference = str(locked.reference)
        return StepReport(number, locked.name, reference, locked.commit, 1.0, 1.0, 1.0, licenses=licenses)

    scores: Scores = {"a": {"accuracy": 0.5, "confusion": [[1, 0], [0, 1]]}, "b": {"accuracy": 1, "f1": 0.25}}
    tasks = (
        TaskReport("a", "causal-lm", 1, "me/data", commit=COMMITS[4], licenses=(License(("cc-by-4.0", "odc-by")),)),
        TaskReport("b", "text-classification", 2, "me/data", "subset", commit=COMMITS[4]),
        TaskReport("c", "text-classification", 2, "./data", commit=LOCAL),
    )
    base = ModelReport("me/base@main", COMMITS[0], (License(("apache-2.0", "gemma")),))
    made = RunReport(base, "opcm", LOCK.recipe, tasks=tasks, versions={"hubmerge": "1", "torch": "2"})
    for number in (1, 2, 3):
        made = made.with_step(step(number))
    last = dataclasses.replace(made.steps[-1], scores=scores, files={"model.safetensors": "3" * 64})
    return made.with_step(last)


def test_the_inputs_are_those_of_the_step() -> None:
    found = [(one.role, one.name, one.address, one.step) for one in pinned_inputs(LOCK, report())]
    assert found == [
        ("base model", "base", f"hf://me/base@{COMMITS[0]}", None),
        ("checkpoint", "first", f"hf://me/first@{COMMITS[1]}/sub/folder", 1),
        ("adapter", "first", f"hf://me/lora@{COMMITS[2]}", 1),
        ("checkpoint", "second", None, 2),
        ("checkpoint", "again", f"hf://me/first@{COMMITS[1]}", 3),
        ("data set", "me/data", f"hf://datasets/me/data@{COMMITS[4]}", None),
        ("data set", "./data", None, None),
    ]
    dependencies = statement(report(), LOCK, {})["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert dependencies[1] == {
        "name": "first",
        "uri": f"hf://me/first@{COMMITS[1]}/sub/folder",
        "digest": {"gitCommit": COMMITS[1]},
        "annotations": {"role": "checkpoint", "reference": "me/first/sub/folder@v1", "step": "1"},
    }
    assert dependencies[3]["digest"] == {"sha256": "1" * 64}
    assert "uri" not in dependencies[3]


def test_a_statement_is_one_of_in_toto_with_a_provenance_of_slsa() -> None:
    """The classes are those of in-toto; unknown keys are errors."""
    listed = dataclasses.replace(
        report(), all_files={"a": FileRecord("4" * 64, 1), "README.md": FileRecord("5" * 64, 1)}
    )
    made = statement(listed, LOCK, {"merge_method": "opcm", "parameters": {"alpha": 0.5}})
    read = Statement.copy_from_pb(Parse(json.dumps(made), statement_pb2.Statement()))
    read.validate()
    assert [(one.name, dict(one.digest)) for one in read.pb.subject] == [("a", {"sha256": "4" * 64})]
    provenance = Parse(json.dumps(made["predicate"]), provenance_pb2.Provenance())
    assert len(provenance.build_definition.resolved_dependencies) == 7
    assert provenance.build_definition.external_parameters["step"] == 3


def test_the_bill_names_each_input_once_and_is_written_alike() -> None:
    details = BomDetails("me/merged", License(("other",), "my-own", "https://example.org/terms"), "CLIPModel")
    bill = bom(report(), LOCK, details)
    assert [part["bom-ref"] for part in bill["components"]] == [
        *("base-model", "checkpoint-1", "adapter-1", "checkpoint-2", "checkpoint-3", "data-set-1", "data-set-2")
    ]
    assert [part.get("purl") for part in bill["components"][:2]] == [
        f"pkg:huggingface/me/base@{COMMITS[0]}",
        f"pkg:huggingface/me/first@{COMMITS[1]}#sub/folder",
    ]
    model = bill["metadata"]["component"]
    assert model["licenses"] == [{"license": {"name": "my-own", "url": "https://example.org/terms"}}]
    licenses = [part.get("licenses") for part in bill["components"]]
    assert licenses[0] == [{"license": {"id": "Apache-2.0"}}, {"license": {"name": "gemma"}}]
    assert licenses[5:] == [[{"license": {"id": "CC-BY-4.0"}}, {"license": {"name": "odc-by"}}], None]
    assert licenses[1:4] == [[{"license": {"id": "MIT"}}], [{"license": {"id": "CC-BY-NC-4.0"}}], None]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "accuracy", "value": "0.5", "slice": "a"},
        {"type": "accuracy", "value": "1", "slice": "b"},
        {"type": "f1", "value": "0.25", "slice": "b"},
    ]
    assert len(model["modelCard"]["modelParameters"]["datasets"]) == 2
    text = bom_text(report(), LOCK, details)
    assert text == bom_text(report(), LOCK, details)
    assert json.loads(text) == bill
    other = bom(report(), LOCK, dataclasses.replace(details, repo="me/other"))
    assert other["serialNumber"] != bill["serialNumber"]
