"""Names that people write for kinds of task and metrics, where recipes have another name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from merge_recipes.errors import did_you_mean

KIND_SYNONYMS: Mapping[str, str] = {
    "clip": "zero-shot-image-classification",
    "zero-shot": "zero-shot-image-classification",
    "zero-shot-classification": "zero-shot-image-classification",
    "zeroshot": "zero-shot-image-classification",
    "zeroshot-classification": "zero-shot-image-classification",
    "zeroshot-image-classification": "zero-shot-image-classification",
    "glue": "text-classification",
    "natural-language-inference": "text-classification",
    "nli": "text-classification",
    "sentence-classification": "text-classification",
    "sentiment": "text-classification",
    "sentiment-analysis": "text-classification",
    "sequence-classification": "text-classification",
    "topic-classification": "text-classification",
    "causal-language-modeling": "causal-lm",
    "clm": "causal-lm",
    "language-model": "causal-lm",
    "language-modeling": "causal-lm",
    "language-modelling": "causal-lm",
    "lm": "causal-lm",
    "next-token-prediction": "causal-lm",
    "perplexity": "causal-lm",
    "text-generation": "causal-lm",
    "lm-evaluation-harness": "lm-eval",
    "lm-eval-harness": "lm-eval",
    "harness": "lm-eval",
    "summarization": "generation",
    "translation": "generation",
    "text2text-generation": "generation",
}
"""Names of the Hub and of other tools for kinds of task, in lower case with hyphens."""

METRIC_SYNONYMS: Mapping[str, str] = {
    "acc": "accuracy",
    "acc1": "accuracy",
    "acc@1": "accuracy",
    "accuracy-score": "accuracy",
    "top-1": "accuracy",
    "top-1-accuracy": "accuracy",
    "top1": "accuracy",
    "top1-accuracy": "accuracy",
    "f-measure": "f1",
    "f-score": "f1",
    "f1-macro": "f1",
    "f1-score": "f1",
    "macro-f1": "f1",
    "acc5": "top-5",
    "acc@5": "top-5",
    "top-5-accuracy": "top-5",
    "top5": "top-5",
    "top5-accuracy": "top-5",
    "confusion-matrix": "confusion",
    "ppl": "perplexity",
}
"""Names of other tools for metrics, in lower case with hyphens."""


def other_name(word: str, names: Collection[str], synonyms: Mapping[str, str]) -> str | None:
    """Return the name that stands in a recipe for what a word means elsewhere, or None.

    >>> other_name("Sentiment", ["text-classification", "causal-lm"], KIND_SYNONYMS)
    'text-classification'
    """
    plain = "-".join(word.lower().replace("_", " ").replace("-", " ").split())
    found = plain if plain in names else synonyms.get(plain)
    return found if found in names else None


def suggestion(word: str, names: Collection[str], synonyms: Mapping[str, str]) -> str:
    """Return "; did you mean causal-lm?" for a synonym or a similar name, else the list of names.

    >>> suggestion("text-generation", ["text-classification", "causal-lm"], KIND_SYNONYMS)
    '; did you mean causal-lm?'
    """
    found = other_name(word, names, synonyms)
    return did_you_mean(word, names) if found is None else f"; did you mean {found}?"
