"""The Hub's own check of a card, before anything is uploaded."""

from __future__ import annotations

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from hubmerge.hub.client import endpoint
from hubmerge.hub.explain import with_sentences
from hubmerge.hub.failures import status_of
from hubmerge.hub.retry import call

_NO_ROUTE = frozenset({404, 405, 501})


def refusal_of_card(text: str, repo: str) -> str | None:
    """Return why the Hub would refuse a card, in its own words; None if it accepts it, or has no such check.

    Args:
        text: the card.
        repo: the target repo, a field of errors.

    Raises:
        HubError: the Hub does not respond.
    """

    def ask() -> str | None:
        address = f"{endpoint()}/api/validate-yaml"
        body = {"content": text, "repoType": "model"}
        response = get_session().post(address, json=body, headers=build_hf_headers(library_name="hubmerge"))
        try:
            hf_raise_for_status(response)
        except HfHubHTTPError as error:
            if status_of(error) in _NO_ROUTE:
                return None
            if status_of(error) == 400:
                return with_sentences("the Hub refuses the metadata of the card", error)
            raise
        return None

    return call(f"check of the card of {repo}", ask, repo=repo)
