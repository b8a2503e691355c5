"""Secrets in recipes and in the environment: refused with their place, and shown nowhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import hubmerge
from hubmerge.hub.client import api
from merge_recipes.secrets import check_no_secrets
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
RECIPE = "merge_method: opcm\nbase_model: me/base\nmodels:\n  - model: me/first\n"
TOKEN = "hf_" + 34 * "k"
SECRETS = {
    "user": TOKEN,
    "github": "ghp_" + 36 * "x",
    "github-fine": "github_pat_" + 60 * "y",
    "gitlab": "glpat-" + 20 * "z",
    "key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "password": "https://me:s3cretpw@hub.example.org/me/base",
    "cloud": "AKIA" + 16 * "Q",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("place", ["comment", "value", "key"])
def test_recipe_with_a_secret(hubmerge: Command, tmp_path: Path, secret: str, place: str) -> None:
    line = {"comment": f"# {secret}", "value": f'extra: "{secret}"', "key": f'"{secret}": 1'}[place]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{RECIPE}{line}\n")
    for output in ("--quiet", "--json"):
        status, out, errors = hubmerge("check", recipe, output)
        assert status == 2
        assert "recipe.yaml:5:" in out + errors or json.loads(out)["line"] == 5
        assert "access token or a password" in out + errors
        assert secret not in out + errors
        assert "s3cretpw" not in out + errors


def test_included_file_with_a_token(hubmerge: Command, tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(f"name: first  # {TOKEN}\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE + "evaluate:\n  tasks:\n    - include: tasks.yaml\n")
    status, _, errors = hubmerge("check", recipe)
    assert status == 2
    assert "tasks.yaml:1:" in errors
    assert TOKEN not in errors


def test_dict_with_a_token() -> None:
    recipe = {"merge_method": "opcm", "base_model": "me/base", "models": [{"model": "me/a", "name": TOKEN}]}
    with pytest.raises(hubmerge.RecipeError, match="access token") as refused:
        hubmerge.load(recipe)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["hf_model", "me/sk-finetune-of-a-long-name-with-many-words", "a@b", "ghp_x", "https://h.org/a:b@c"]
)
def test_text_that_is_no_secret(text: str) -> None:
    check_no_secrets(f"name: {text}", "recipe.yaml")


@pytest.mark.parametrize("command", ["plan", "outdated", "check"])
def test_password_in_the_address_of_the_hub(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    recipe = stage.write(tmp_path, stage.recipe("local/with-password", entries=tuple(stage.towers)[:1]))
    monkeypatch.setenv("HF_ENDPOINT", "http://me:s3cretpw@127.0.0.1:9")
    status, out, errors = hubmerge(command, recipe)
    assert status == 2
    assert "HF_ENDPOINT contains a user name or a password" in errors
    assert "s3cretpw" not in out + errors


@pytest.mark.parametrize("token", ["пароль-секрет", "hf_abc def", "hf_\x1b[31m", "hf_é"])
def test_token_with_odd_characters(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(hubmerge.HubError, match="a character that no token has") as refused:
        api()
    assert token not in str(refused.value) + str(refused.value.hint)
