"""Tests of the pages for browsers."""

from __future__ import annotations

import hashlib
import json
import urllib.request

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from hubmerge.localhub import LocalHub
from tests.localhub.browsing import BROWSER, Names, api, ask, links, page, repo

__all__ = ["api", "repo"]  # fixtures


def test_the_first_page_lists_repos_of_every_kind(local_hub: LocalHub, api: HfApi, repo: str, repo_name: Names) -> None:
    dataset = api.create_repo(repo_name("digits"), repo_type="dataset").repo_id
    hidden = api.create_repo(repo_name("hidden"), private=True).repo_id
    found = links(page(local_hub, "/"))
    assert f"/{repo}" in found
    assert f"/datasets/{dataset}" in found
    assert f"/{hidden}" not in found
    assert f"/datasets/{dataset}/resolve/main/.gitattributes" in links(page(local_hub, f"/datasets/{dataset}"))


def test_the_page_of_an_empty_hub_lists_no_repos(tmp_path_factory: pytest.TempPathFactory) -> None:
    with LocalHub(tmp_path_factory.mktemp("hub")) as hub:
        assert "no public repos" in page(hub, "/")


@pytest.mark.parametrize("path", ["", "/", "/tree/main", "/tree/step-08", "/tree/refs%2Ftags%2Fstep-08"])
def test_a_repo_is_shown_at_a_branch_and_a_tag(local_hub: LocalHub, api: HfApi, repo: str, path: str) -> None:
    text = page(local_hub, f"/{repo}{path}")
    assert str(api.model_info(repo).sha) in text
    assert "Step 8 &amp; last" in text
    assert "5 B" in text
    revision = path.rpartition("/")[2] or "main"
    for target in (f"/{repo}/tree/main", f"/{repo}/tree/step-08", f"/{repo}/resolve/{revision}/notes.txt"):
        assert target in links(text)
    assert f'href="/{repo}/tree/{revision.removeprefix("refs%2Ftags%2F")}" aria-current="page"' in text


def test_relative_addresses_of_a_card_resolve_to_files(local_hub: LocalHub, repo: str) -> None:
    text = page(local_hub, f"/{repo}/tree/step-08")
    assert "<h1>Merged <em>model</em></h1>" in text
    assert '<td style="text-align:right">81.2</td>' in text
    assert "apache-2.0" in text
    assert "merge, &lt;b&gt;bold&lt;/b&gt;" in text
    assert "nested" not in text
    assert f'src="/{repo}/resolve/step-08/plots/scores.png"' in text
    assert {f"/{repo}/resolve/step-08/notes.txt", "/local/base/tree/main", "https://example.org/p?q=1"} <= {
        *links(text)
    }
    assert ask(local_hub, f"/{repo}/resolve/step-08/plots/scores.png")[:2] == (200, "image/png")


def test_a_repo_is_shown_at_a_commit_and_at_revisions_with_slashes(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    earlier = str(api.model_info(repo).sha)
    api.create_branch(repo, branch="dev/x")
    later = api.upload_file(
        path_or_fileobj=b"x" * 12345, path_in_repo="only there #1.txt", repo_id=repo, revision="dev/x"
    ).oid
    proposed = api.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id=repo, create_pr=True)
    old = page(local_hub, f"/{repo}/tree/{earlier}")
    assert "only there" not in old
    assert f"/{repo}/resolve/{earlier}/notes.txt" in links(old)
    for address in ("dev%2Fx", "dev/x"):
        text = page(local_hub, f"/{repo}/tree/{address}")
        assert later in text
        assert "12.3 kB" in text
        assert f"/{repo}/resolve/dev%2Fx/only%20there%20%231.txt" in links(text)
        assert {f"/{repo}/tree/dev%2Fx", f"/{repo}/tree/refs%2Fpr%2F1"} <= {*links(text)}
    assert proposed.oid in page(local_hub, f"/{repo}/tree/refs/pr/1")
    for target in links(page(local_hub, f"/{repo}/tree/dev/x")):
        if target.startswith(f"/{repo}/") and "/base/" not in target:
            assert ask(local_hub, target)[0] == 200, target


def test_a_folder_is_listed(local_hub: LocalHub, repo: str) -> None:
    assert f"/{repo}/tree/step-08/plots" in links(page(local_hub, f"/{repo}/tree/step-08"))
    text = page(local_hub, f"/{repo}/tree/step-08/plots")
    assert f"/{repo}/resolve/step-08/plots/scores.png" in links(text)
    assert "notes.txt" not in text
    assert "no folder nowhere" in page(local_hub, f"/{repo}/tree/step-08/nowhere", 404)
    assert f"/{repo}/resolve/step-08/notes.txt" in links(page(local_hub, f"/{repo}/tree/step-08/notes.txt", 404))


def test_the_history_leads_to_commits_and_files(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    first = str(api.model_info(repo).sha)
    second = api.create_commit(
        repo,
        [CommitOperationAdd("notes.txt", b"<new> & old"), CommitOperationDelete("plots/scores.png")],
        commit_message="Two <changes>",
        commit_description="with & words",
    ).oid
    for address in ("main", "HEAD", second, "refs%2Fheads%2Fmain", "refs/heads/main"):
        text = page(local_hub, f"/{repo}/commits/{address}")
        assert {f"/{repo}/commit/{first}", f"/{repo}/commit/{second}", f"/{repo}/tree/{first}"} <= {*links(text)}
        assert "Two &lt;changes&gt;" in text
        text = page(local_hub, f"/{repo}/commit/{address}")
        assert "with &amp; words" in text
        assert {f"/{repo}/commit/{first}", f"/{repo}/tree/{second}", f"/{repo}/commits/{second}"} <= {*links(text)}
        assert f"/{repo}/blob/{second}/notes.txt" in links(text)
        assert f"/{repo}/blob/{first}/plots/scores.png" in links(text)
        assert ("5 B → 11 B" in text, "changed" in text, "removed" in text, "2 files" in text) == (True,) * 4
    assert f"/{repo}/commits/main" in links(page(local_hub, f"/{repo}"))
    assert f"/{repo}/commit/{second}" in links(page(local_hub, f"/{repo}"))
    for path in ("commits/none", "commit/none", "commit/" + "0" * 40, "blob/none/notes.txt"):
        assert f"/{repo}/tree/step-08" in links(page(local_hub, f"/{repo}/{path}", 404))


def test_a_long_history_has_several_pages(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    repository = local_hub.site.registry.find("model", repo)
    assert repository is not None
    for number in range(60):
        head = repository.resolve("main")
        repository.write_ref(
            "heads", "main", repository.write_change(head, [], title=f"Commit {number}.", message="", author="local")
        )
    text = page(local_hub, f"/{repo}/commits/main")
    assert "Commit 59." in text
    assert "Commit 9." not in text
    assert f"/{repo}/commits/main?p=1" in links(text)
    text = page(local_hub, f"/{repo}/commits/main?p=1")
    assert "Commit 9." in text
    assert "initial commit" in text
    assert f"/{repo}/commits/main?p=0" in links(text)


def test_a_file_is_shown_or_described(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    hostile = b"<script>alert('file')</script>\xff"
    files = {"a b.html": hostile, "w.bin": b"\0large", "long.txt": b"x" * 300_000, "dev/x.svg": b"<svg onload=a()>"}
    api.create_commit(repo, [CommitOperationAdd(*item) for item in files.items()], commit_message="files")
    api.create_branch(repo, branch="dev/x")
    text = page(local_hub, f"/{repo}/blob/dev/x/a%20b.html")
    assert "&lt;script&gt;alert(&#x27;file&#x27;)&lt;/script&gt;" in text
    assert "<script" not in text
    for target in (
        f"/{repo}/resolve/dev%2Fx/a%20b.html?download=true",
        f"/{repo}/raw/dev%2Fx/a%20b.html",
        f"/{repo}/tree/dev%2Fx",
        f"/{repo}/commits/dev%2Fx",
    ):
        assert target in links(text)
        assert ask(local_hub, target)[0] == 200
    assert ask(local_hub, f"/{repo}/raw/main/a%20b.html")[1] == "text/plain; charset=utf-8"
    assert f'src="/{repo}/resolve/main/plots/scores.png"' in page(local_hub, f"/{repo}/blob/main/plots/scores.png")
    text = page(local_hub, f"/{repo}/blob/main/w.bin")
    assert hashlib.sha256(b"\0large").hexdigest() in text
    assert "not shown here" in text
    assert "not shown here" in page(local_hub, f"/{repo}/blob/main/long.txt")
    assert "<svg" not in page(local_hub, f"/{repo}/blob/main/dev/x.svg")
    assert f"/{repo}/tree/main/plots" in links(page(local_hub, f"/{repo}/blob/main/plots", 404))
    api.update_repo_settings(repo, gated="manual")
    assert "alert" not in page(local_hub, f"/{repo}/blob/main/a%20b.html", 401)


def test_cards_and_other_markdown_are_rendered(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    api.upload_file(path_or_fileobj=b"see [more](more.txt)", path_in_repo="docs/a.md", repo_id=repo)
    card = page(local_hub, f"/{repo}/blob/main/README.md")
    assert "<em>model</em>" in card
    assert f"/{repo}/raw/main/README.md" in links(card)
    assert "license: apache-2.0" not in card
    assert f"/{repo}/blob/main/docs/more.txt" in links(page(local_hub, f"/{repo}/blob/main/docs/a.md"))


def test_a_report_opens_as_a_page_without_access_to_the_hub(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    report = b"<!doctype html>\n<script>1</script></html>\n"
    api.upload_file(path_or_fileobj=report, path_in_repo="report.html", repo_id=repo)
    address = f"/{repo}/blob/main/report.html"
    assert "?page" in links(page(local_hub, address))
    request = urllib.request.Request(f"{local_hub.endpoint}{address}?page", headers=BROWSER)
    with urllib.request.urlopen(request, timeout=60) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert answer.read() == report
    assert "sandbox allow-scripts;" in policy
    assert "default-src 'none'" in policy
    assert "?page" not in links(page(local_hub, f"/{repo}/blob/main/notes.txt"))
    assert "&lt;" not in page(local_hub, f"/{repo}/blob/main/notes.txt?page")


def test_an_owner_has_a_page(local_hub: LocalHub, api: HfApi, repo: str, repo_name: Names) -> None:
    hidden = api.create_repo(repo_name("hidden"), private=True).repo_id
    api.create_repo("someone/else", exist_ok=True)
    found = links(page(local_hub, "/local"))
    assert f"/{repo}" in found
    assert f"/{hidden}" not in found
    assert "/someone/else" not in found
    assert links(page(local_hub, f"/{repo}"))[1:3] == ["/local", f"/{repo}"]
    assert "/someone/else" in links(page(local_hub, "/someone"))
    assert "never-made&lt;b&gt;" in page(local_hub, "/never-made%3Cb%3E", 404)
    assert "running" not in page(local_hub, "/datasets", 501)
    assert ask(local_hub, "/local", "HEAD")[::2] == (200, "")


def test_discussions_have_pages(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    api.create_discussion(repo, title="Why <i>", description="<script>why</script>")
    done = api.upload_file(path_or_fileobj=b"y", path_in_repo="y.txt", repo_id=repo, create_pr=True)
    assert done.pr_url is not None
    number = done.pr_url.rpartition("/")[2]
    listed = page(local_hub, f"/{repo}/discussions")
    assert {f"/{repo}/discussions/1", f"/{repo}/discussions/{number}"} <= {*links(listed)}
    assert "Why &lt;i&gt;" in listed
    assert "&lt;script&gt;why&lt;/script&gt;" in page(local_hub, f"/{repo}/discussions/1")
    found = links(page(local_hub, done.pr_url.removeprefix(local_hub.endpoint)))
    assert {f"/{repo}/tree/refs%2Fpr%2F{number}", f"/{repo}/commit/{done.oid}"} <= {*found}
    api.merge_pull_request(repo, int(number))
    assert f"/{repo}/commit/{api.model_info(repo).sha}" in links(page(local_hub, f"/{repo}/discussions/{number}"))
    assert f"/{repo}/discussions" in links(page(local_hub, f"/{repo}/discussions/99", 404))
    assert f"/{repo}/discussions" in links(page(local_hub, f"/{repo}"))
    api.update_repo_settings(repo, gated="manual")
    assert "Why" not in page(local_hub, f"/{repo}/discussions", 401)


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_pages_of_every_kind_link_to_each_other(local_hub: LocalHub, api: HfApi, repo_name: Names, kind: str) -> None:
    sdk = "static" if kind == "space" else None
    name = api.create_repo(repo_name(), repo_type=kind, space_sdk=sdk).repo_id
    api.upload_file(path_or_fileobj=b"y", path_in_repo="d/y.txt", repo_id=name, repo_type=kind, create_pr=True)
    seen, waiting = set(), [f"/{kind}s/{name}"]
    while waiting:
        address = waiting.pop()
        seen.add(address)
        if address.startswith((f"/{kind}s/{name}/resolve/", f"/{kind}s/{name}/raw/")):
            assert ask(local_hub, address)[0] == 200, address
            continue
        found = [target for target in links(page(local_hub, address)) if name in target]
        waiting += [target for target in {*found} - seen if target not in waiting]
    parts = {address.removeprefix(f"/{kind}s/{name}").split("/")[1] for address in seen if address.count("/") > 3}
    assert parts == {"tree", "blob", "commit", "commits", "discussions", "resolve", "raw"}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/nothing", 501),
        ("GET", "/api/models/local/never-made", 401),
        ("GET", "/v1/chunks/default/0", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/local/never-made/resolve/main/config.json", 401),
        ("POST", "/v2/shards", 404),
        ("POST", "/", 405),
        ("POST", "/local/never-made", 405),
    ],
)
def test_addresses_for_programs_answer_json(local_hub: LocalHub, method: str, path: str, expected: int) -> None:
    status, media_type, text = ask(local_hub, path, method)
    assert status == expected
    assert media_type == "application/json"
    assert json.loads(text)["error"]
    status, media_type, _ = ask(local_hub, "/some/thing/else", Accept="*/*")
    assert (status, media_type) == (404, "application/json")
    assert ask(local_hub, "/", "HEAD")[::2] == (200, "")
