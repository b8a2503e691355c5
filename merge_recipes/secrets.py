"""Access tokens and passwords in the text of a recipe, which is published with the model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from merge_recipes.errors import Problem, RecipeError

_PARTS = (
    r"\bhf_[A-Za-z0-9]{16,}\b",  # Hugging Face
    r"\bhf_(?:jwt|oauth)_[\w.-]{16,}",
    r"\bapi_org_[A-Za-z]{16,}\b",
    r"\bgh[opsru]_[A-Za-z0-9]{30,}\b",  # GitHub
    r"\bgithub_pat_\w{30,}\b",
    r"\bglpat-[\w-]{20,}",  # GitLab
    r"\bsk-(?:[a-z]+-)?[A-Za-z0-9]{32,}\b",  # providers of language models
    r"\bA[KS]IA[0-9A-Z]{16}\b",  # Amazon
    r"\bxox[abeprs]-[0-9A-Za-z-]{20,}",  # Slack
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"(?<=://)[^\s/@:'\"]*:[^\s/@'\"]+(?=@)",  # user:password in an address
)
SECRET = re.compile("|".join(_PARTS))
"""Texts that are an access token, a private key or a password by their form."""


def check_no_secrets(text: str, file: str) -> None:
    """Check that a YAML text, comments included, contains no token, key or password.

    Args:
        text: the text.
        file: its name in messages.

    Raises:
        RecipeError: it contains one; every place is listed, without the secret.
    """
    problems = list(_problems(text, file))
    if problems:
        raise RecipeError(problems)


def _problems(text: str, file: str) -> Iterator[Problem]:
    for number, line in enumerate(text.splitlines(), 1):
        for match in SECRET.finditer(line):
            yield Problem(
                "this is an access token or a password by its form; a recipe is published with the model",
                "remove it here and set HF_TOKEN instead; if the file was shared, revoke the token",
                file,
                number,
                match.start() + 1,
            )
