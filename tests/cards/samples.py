"""Reports to write cards from."""

from __future__ import annotations

from hubmerge.report.report import ModelReport, RunReport, Scores, Spread, StepReport, TaskReport, TensorSummary

KIND = "zero-shot-image-classification"
RECIPE = """\
merge_method: opcm
base_model: openai/clip-vit-base-patch32
models:
  - model: tanganke/clip-vit-base-patch32_sun397
  - model: tanganke/clip-vit-base-patch32_mnist@v1
  - model: ./my-pets
parameters: {alpha: 0.5}
"""
ENTRIES = (
    ("sun397", "tanganke/clip-vit-base-patch32_sun397", "1" * 40),
    ("mnist", "tanganke/clip-vit-base-patch32_mnist@v1", "2" * 40),
    ("pets", "./my-pets", "sha256:" + "3" * 64),
)
SCORES: tuple[Scores, ...] = (
    {"sun397": {"accuracy": 0.75}},
    {"sun397": {"accuracy": 0.71}, "mnist": {"accuracy": 0.9712, "f1": 0.9698}},
    {
        "sun397": {"accuracy": 0.6853},
        "mnist": {"accuracy": 0.9456, "f1": 0.9444, "confusion": [[9, 1], [0, 10]]},
        "pets": {"top-5": 0.9912},
    },
)


def sample_report() -> RunReport:
    tasks = (
        TaskReport("sun397", KIND, 1, "tanganke/sun397", None, "test", "a" * 40, ("accuracy",), 19850, 397),
        TaskReport(
            "mnist", KIND, 2, "ylecun/mnist", "mnist", "test", "b" * 40, ("accuracy", "f1", "confusion"), 10000, 10
        ),
        TaskReport("pets", KIND, 3, "./pets", None, "validation", "sha256:" + "c" * 64, ("top-5",), 240, 37),
    )  # fmt: skip
    steps = tuple(
        StepReport(
            step=number,
            name=name,
            reference=reference,
            commit=commit,
            scale=1.0 + 0.4 * (number - 1),
            accumulated_norm=2.5 * number,
            task_vector_norm=2.5 + number / 100,
            tensors=TensorSummary(72, 127, Spread(88.25, 31, 214) if number > 1 else None, Spread(0.141, 0.02, 0.31)),
            similarity=None if number == 1 else 0.0123,
            scores=scores,
            rounding=(0.0, 1.2e-5, 0.0345)[number - 1],
            seconds=12.5,
            chain_digest=f"{number}" * 64,
        )
        for number, ((name, reference, commit), scores) in enumerate(zip(ENTRIES, SCORES, strict=True), start=1)
    )
    return RunReport(
        ModelReport("openai/clip-vit-base-patch32", "0" * 40),
        "opcm",
        "e" * 64,
        {"alpha": 0.5},
        tasks,
        steps,
        {"sun397": {"accuracy": 0.632}, "mnist": {"accuracy": 0.4825, "f1": 0.4712}, "pets": {"top-5": 0.91}},
        {"sun397": {"accuracy": 0.7512}, "mnist": {"accuracy": 0.9965, "f1": 0.9964}, "pets": {"top-5": 0.999}},
        {"hubmerge": "0.1.0", "torch": "2.13.0"},
    )
