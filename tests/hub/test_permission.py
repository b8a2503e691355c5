"""Permission to publish, asked for before anything is merged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.errors import HubError
from hubmerge.hub.permission import check_permission
from tests.conftest import READER_TOKEN, STRANGER_TOKEN
from tests.stage import Stage

Names = Callable[..., str]


def refusal(repo: str, *, exists: bool = False) -> str:
    with pytest.raises(HubError) as caught:
        check_permission(repo, exists=exists)
    assert caught.value.context.repo == repo
    return str(caught.value)


def test_own_and_foreign_namespaces(repo_name: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    HfApi().create_repo(org := repo_name("model", "some-org"))
    check_permission(repo_name("target"), exists=False)
    check_permission(repo_name("target", "never-seen"), exists=False)  # as an administrator
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    check_permission("stranger/target", exists=False)
    assert "there is no account and no organization never-seen" in refusal("never-seen/target")
    assert "local is another account" in refusal("local/target")
    assert "some-org is an organization that it does not belong to" in refusal("some-org/target")
    assert "no permission" in refusal(org, exists=True)
    monkeypatch.setenv("HF_TOKEN", READER_TOKEN)
    assert "this token is read-only" in refusal("reader/target")
    monkeypatch.delenv("HF_TOKEN")
    assert "needs a token with write access" in refusal("reader/target")


@pytest.fixture
def as_account(local_hub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that adds an account to the embedded Hub and takes its token."""
    from hubmerge.localhub.users import User

    users, before = local_hub.site.users, local_hub.site.users.users

    def add(name: str, **entry: Any) -> None:
        users.users = (*before, User.of({"name": name, "token": f"hf_{name}", **entry}))
        monkeypatch.setenv("HF_TOKEN", f"hf_{name}")

    yield add
    users.users = before


def test_roles_in_organizations(as_account: Callable[..., None]) -> None:
    as_account("ann", orgs=["team", {"name": "watched", "role": "read"}, {"name": "joined", "role": "contributor"}])
    check_permission("team/target", exists=False)
    check_permission("joined/target", exists=False)
    assert "has the role read in the organization watched" in refusal("watched/target")


def test_fine_grained_tokens(as_account: Callable[..., None], repo_name: Names) -> None:
    scopes = {"ci": ["repo.content.read", "repo.write"], "team": ["repo.content.read"], "team/one": ["repo.write"]}
    as_account("ci", role="fineGrained", scopes=scopes, orgs=["team"])
    check_permission("ci/target", exists=False)
    check_permission("team/one", exists=False)
    assert "this fine-grained token has no write permission for team" in refusal("team/other")


def test_what_the_hub_refuses_is_refused_before(as_account: Callable[..., None], repo_name: Names) -> None:
    """The embedded Hub decides about commits as it does in its answers about permissions."""
    from huggingface_hub.errors import HfHubHTTPError

    for name in (owned := repo_name("model", "ci"), other := repo_name("model", "team")):
        HfApi().create_repo(name)
    as_account("ci", role="fineGrained", scopes={owned: ["repo.write"]}, orgs=[{"name": "team", "role": "read"}])
    api = HfApi()
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=owned)
    check_permission(owned, exists=True)
    for refused in (
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=other),
        lambda: api.create_repo("ci/new"),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            refused()
        assert caught.value.response.status_code == 403
    account = api.whoami()
    assert account["auth"]["accessToken"]["fineGrained"]["scoped"][0]["entity"] == {"type": "model", "name": owned}
    assert api.get_organization_overview("team").name == "team"
    assert api.get_user_overview("ci").username == "ci"


def test_plan_and_run_report_the_permission_with_the_mistakes_of_tasks(
    stage: Stage, hubmerge: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = stage.recipe("never-seen/target")
    recipe["evaluate"]["tasks"][1]["dataset"]["split"] = "nope"
    path = stage.write(tmp_path, recipe)
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    for command in ("plan", "run"):
        status, output, errors = hubmerge(command, path, "--json")
        event = json.loads(output.splitlines()[-1])
        assert status == 3, errors
        assert [problem["code"] for problem in event["problems"]] == ["hub", "dataset"]
        assert "publish.repo: publishing to never-seen/target" in event["problems"][0]["message"]
    monkeypatch.delenv("HF_TOKEN")
    status, _, errors = hubmerge("plan", path)
    assert "needs a token" not in errors
