"""A stream of tiny CLIP models with both towers fine-tuned: merged, and scored with the merged text tower.

    python benchmarks/study/multimodal.py measure FOLDER RESULTS.jsonl STREAM     STREAM: a folder of streams.py
    python benchmarks/study/multimodal.py tell RESULTS.jsonl [ROW]    ROW: differences to it, not to OPCM

The base model of the stream is fine-tuned once for each task: vision tower, text tower and projections. The task kind
`zero-shot-image-classification` embeds prompts with the base model's text tower, so the merged models are scored here:
images and prompts both go through the merged model. *Vision only* merges the same checkpoints with the text tower and
both projections of the base model kept.
"""

from __future__ import annotations

import copy
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from json_lines import append, read
from torch.nn import functional
from transformers import AutoTokenizer, CLIPModel

from hubmerge.demo import training
from hubmerge.demo.plan import TrainingPlan
from hubmerge.demo.tasks import DEMO_TASKS, DemoTask
from hubmerge.executor import InMemoryModel
from hubmerge.executor.joint import JointInput, JointMerge, JointModel
from hubmerge.methods import JointMethod, method_of
from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study
from hubmerge.study.answers import pack_answers, paired_difference, unpack_answers
from hubmerge.study.bench import Bench
from hubmerge.study.merge_cell import merged_steps
from hubmerge.support.progress import SilentProgress
from merge_recipes import TensorParameters

SEED = 1
TEST_IMAGES = 240
VISION_ONLY = {"include": ["vision_model.*"]}
VARIANTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("OPCM", "opcm", {}),
    ("WUDI exact, ridge 0.1", "wudi", {}),
    ("WUDI exact, ridge 0.3", "wudi", {"ridge": 0.3}),
    ("adaptive scale", "adaptive_scale", {}),
    ("weight average", "weight_average", {}),
    ("task arithmetic 0.2", "task_arithmetic", {"scaling": 0.2}),
    ("task arithmetic 0.3", "task_arithmetic", {"scaling": 0.3}),
    ("TSV-M", "tsv_m", {}),
    ("Iso-C 1.5", "iso_c", {}),
    ("ACE on moments", "ace", {}),
    ("MagMax 0.5", "magmax", {}),
)


def measure(folder: Path, results: Path, stream: Path) -> None:
    """Fine-tune, merge and score what is not there yet."""
    torch.set_num_threads(1)
    for task in DEMO_TASKS:
        if not (folder / task.name).exists():
            model = fine_tune(CLIPModel.from_pretrained(stream / "base"), stream, task)
            model.save_pretrained(folder / task.name)
    done = {line["label"] for line in read(results)}
    scorer = Scorer(stream)
    for label, weights in models(folder, stream, done):
        answers = scorer.answers(weights)
        append(results, {"label": label, "answers": {task: pack_answers(right) for task, right in answers.items()}})


def fine_tune(model: CLIPModel, stream: Path, task: DemoTask) -> CLIPModel:
    """Fine-tune all weights on one task, with the plan of the demo's vision towers."""
    plan = TrainingPlan()
    tokens = AutoTokenizer.from_pretrained(stream / "base")(task.prompts, padding=True, return_tensors="pt")
    images, labels = task.images("train", plan.task_images, SEED)
    pixels, targets = training.to_pixels(images), torch.tensor(labels)
    draw = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.task_learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.task_steps)
    for _ in range(plan.task_steps):
        chosen = torch.randint(len(targets), (training.BATCH,), generator=draw)
        texts = training.text_features(model, tokens)
        logits = model.logit_scale.exp() * training.image_features(model, pixels[chosen]) @ texts.T
        loss = functional.cross_entropy(logits, targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


class Scorer:
    """The test images of all tasks, and one model whose weights are replaced."""

    def __init__(self, stream: Path) -> None:
        self.base = CLIPModel.from_pretrained(stream / "base").eval()
        self.model = copy.deepcopy(self.base)
        tokenizer = AutoTokenizer.from_pretrained(stream / "base")
        self.tasks = []
        for task in DEMO_TASKS:
            images, labels = task.images("test", TEST_IMAGES, SEED)
            tokens = tokenizer(task.prompts, padding=True, return_tensors="pt")
            self.tasks.append((task.name, training.to_pixels(images), torch.tensor(labels), tokens))

    @torch.no_grad()
    def answers(self, weights: Any, only: str | None = None) -> dict[str, np.ndarray]:
        """Return right and wrong answers to the images of each task, or of one."""
        state = self.model.state_dict()
        for name, values in state.items():
            values.copy_(weights(name))
        found = {}
        for name, pixels, labels, tokens in self.tasks:
            if only in {None, name}:
                texts = training.text_features(self.model, tokens)
                guesses = (training.image_features(self.model, pixels) @ texts.T).argmax(dim=1)
                found[name] = (guesses == labels).numpy()
        return found


def models(folder: Path, stream: Path, done: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the label and the reader of the weights of each model that is not done."""
    if "base model" not in done:
        yield "base model", CLIPModel.from_pretrained(stream / "base").state_dict().__getitem__
    for task in DEMO_TASKS:
        if f"own {task.name}" not in done:
            yield f"own {task.name}", CLIPModel.from_pretrained(folder / task.name).state_dict().__getitem__
    for part, tensors in (("both towers", {}), ("vision only", VISION_ONLY)):
        recipe = {
            "merge_method": "opcm",
            "base_model": str((stream / "base").resolve()),
            "models": [{"model": str((folder / task.name).resolve()), "name": task.name} for task in DEMO_TASKS],
            "dtype": "float32",
            **({"tensors": tensors} if tensors else {}),
        }
        with tempfile.TemporaryDirectory() as kept:
            Path(kept, "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
            study = {"recipe": "recipe.yaml", "methods": [{"method": "opcm"}]}
            Path(kept, "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
            loaded = load_study(Path(kept, "study.yaml"), installed_catalog())
            with Bench.open(loaded, Path(kept), SilentProgress()) as bench:
                print(part, len(bench.plan.merged), "tensors merged", flush=True)
                for label, name, parameters in VARIANTS:
                    if f"{part}: {label}" not in done:
                        yield f"{part}: {label}", merged(bench, name, parameters)


def merged(bench: Bench, name: str, parameters: dict[str, Any]) -> Any:
    """Merge all entries by a method, and return the reader of the merged model's weights."""
    changed = bench.recipe.model_copy(update={"merge_method": name, "parameters": parameters})
    method = method_of(changed)
    entries = changed.stream()

    def of(entry: Any) -> TensorParameters[Any]:
        return TensorParameters(method.Parameters, changed, entry, bench.plan.positions)

    if isinstance(method, JointMethod):
        inputs = [JointInput(bench.checkpoints[entry.name], of(entry)) for entry in entries]
        joint = JointMerge(bench.base, method, bench.plan, inputs, has_origin=True, seed=0)
        return JointModel(joint, label=name, context=bench.context).read
    *_, (_, state, _) = merged_steps(bench, method, entries, of)
    read_out = bench.read_out(method, entries[-1], changed)
    return InMemoryModel(bench.base, state, bench.plan, input_dtype=bench.input_dtype, read_out=read_out).read


def tell(results: Path, reference: str = "both towers: OPCM") -> None:
    """Print the accuracy of each model, and the paired difference to one of them."""
    found = {
        line["label"]: {task: unpack_answers(text) for task, text in line["answers"].items()} for line in read(results)
    }
    own = {
        task: answers
        for label, several in found.items()
        if label.startswith("own ")
        for task, answers in several.items()
        if label == f"own {task}"
    }
    rows = {"base model": found["base model"], "own checkpoints": own}
    rows |= {label: answers for label, answers in found.items() if ": " in label}
    print(f"| merged by | mean | to {reference} | 95 % |\n|---|---:|---:|---:|")
    means = {label: statistics.fmean(float(a.mean()) for a in answers.values()) for label, answers in rows.items()}
    for label in sorted(rows, key=lambda label: (label not in {"base model", "own checkpoints"}, -means[label])):
        difference = paired_difference(rows[label], rows[reference])
        interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}" if difference else ""
        to = f"{100 * (means[label] - means[reference]):+.1f}"
        print(f"| {label} | {100 * means[label]:.1f} | {to} | {interval} |")


if __name__ == "__main__":
    if sys.argv[1] == "tell":
        tell(Path(sys.argv[2]), *sys.argv[3:4])
    else:
        measure(*(Path(argument) for argument in sys.argv[2:5]))
