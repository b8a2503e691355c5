"""Pages of the embedded Hub for hostile cards and for what is missing, private, gated or invalid."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

from huggingface_hub import CommitOperationAdd, HfApi

from hubmerge.localhub import LocalHub
from hubmerge.localhub.operations import Put
from hubmerge.localhub.records import FileEntry
from tests.localhub.browsing import Names, api, ask, links, page, repo
from tests.localhub.planting import plant

__all__ = ["api", "repo"]  # fixtures

HOSTILE = """---
license: "\\"><script>alert(0)</script>"
---
<script>alert(1)</script> and <img src=x onerror="alert(2)">

[a](javascript:alert(3)) [b](JaVa&#115;cript:alert(4)) [c](vbscript:x) [d](<data:text/html,<script>alert(5)</script>>)
![e](javascript:alert(6)) [f](x"onmouseover="alert(7)) [g](blob:alert) [h](../../../../api/models) <javascript:alert(8)>

```"><script>alert(9)</script>
</code><script>alert(10)</script>
```
"""


def test_html_and_scripts_of_a_card_are_escaped(local_hub: LocalHub, api: HfApi, repo_name: Names) -> None:
    name = api.create_repo(repo_name()).repo_id
    plant(local_hub, name, "README.md", HOSTILE.encode())
    file = CommitOperationAdd("<script>'\"&.txt", b"x")
    api.create_commit(name, [file], commit_message="<script>alert('title')</script>")
    text = page(local_hub, f"/{name}")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<img src=x" not in text
    tags = re.findall(r"<[a-z][^>]*>", text)
    assert not [tag for tag in tags if re.search(r"\son\w+\s*=", re.sub(r'"[^"]*"', '""', tag))]
    for address in [*links(text), *re.findall(r'src="([^"]*)"', text)]:
        assert address.startswith(("/", "#")), address
    assert f"/{name}/blob/main/api/models" in links(text)
    assert f"/{name}/resolve/main/%3Cscript%3E%27%22%26.txt" in links(text)


def test_the_content_security_policy_forbids_scripts(local_hub: LocalHub, repo: str) -> None:
    with urllib.request.urlopen(f"{local_hub.endpoint}/{repo}", timeout=60) as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert local_hub.token not in answer.read().decode()


def test_pages_for_missing_things_list_existing_ones(local_hub: LocalHub, repo: str) -> None:
    text = page(local_hub, "/local/never-made%3Cb%3E", 404)
    assert "local/never-made&lt;b&gt;" in text
    assert f"/{repo}" in links(text)
    text = page(local_hub, f"/{repo}/tree/step-99", 404)
    assert "no branch, tag or commit step-99" in text
    assert f"/{repo}/tree/step-08" in links(text)
    page(local_hub, f"/{repo}/tree/" + "0" * 40, 404)
    assert "/some/thing/else" in page(local_hub, "/some/thing/else", 404)


def test_a_private_repo_appears_missing(local_hub: LocalHub, api: HfApi, repo_name: Names) -> None:
    name = api.create_repo(repo_name("secret"), private=True).repo_id
    api.upload_file(path_or_fileobj=b"# hidden words", path_in_repo="README.md", repo_id=name)
    never = page(local_hub, "/local/never-made/tree/main", 404)
    assert page(local_hub, f"/{name}/tree/main", 404) == never.replace("local/never-made", name)
    status, _, text = ask(local_hub, f"/{name}", Authorization=f"Bearer {local_hub.token}")
    assert status == 200
    assert "hidden words" in text
    assert local_hub.token not in text
    status, media_type, text = ask(local_hub, f"/{name}", Authorization="Bearer hf_nobody")
    assert (status, media_type) == (401, "text/html; charset=utf-8")
    assert "hf_nobody" not in text


def test_the_card_of_a_gated_repo_is_not_shown(local_hub: LocalHub, api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, gated="manual")
    text = page(local_hub, f"/{repo}")
    assert "notes.txt" in text
    assert "Access to the files of this repo is restricted." in text
    assert "Merged" not in text
    assert "apache-2.0" not in text


def test_invalid_cards_do_not_break_the_page(local_hub: LocalHub, api: HfApi, repo_name: Names) -> None:
    name = api.create_repo(repo_name()).repo_id
    repository = local_hub.site.registry.find("model", name)
    assert repository is not None
    for card, shown in (
        (b"---\n[broken: yaml\n---\n# Still shown", "<h1>Still shown</h1>"),
        (b'---\nlicense: "\\uD800"\n---\n# \xff\xfe', "<article>"),
        (b"---\nnever ended", "never ended"),
        (b"[x](http://[bad)", "<article>"),
        (b"", "<article>"),
        (b"# <long>" + b"[" * 200_000, "# &lt;long&gt;[["),
    ):
        entry = FileEntry(local_hub.site.store.add_blob(card), len(card))
        repository.apply("heads", "main", [Put("README.md", entry)], title="Card", message="", author="local")
        assert shown in page(local_hub, f"/{name}"), card
