"""Keys of a recipe that say where to publish, and what."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from merge_recipes.errors import InvalidReferenceError
from merge_recipes.record import Record, Text
from merge_recipes.references import is_local_path, path_problem
from merge_recipes.schema_types import parse_size
from merge_recipes.signing import SigningOption


class Publish(Record):
    """The target repo on the Hub, and what is published there."""

    repo: Text
    """The model repo to publish to: owner/name. It is created if it does not exist."""
    steps: Literal["every", "last"] = "every"
    """every: publish each step as a commit and a tag (step-01, step-02, ...); last: publish only the last step."""
    model: Literal["full", "tower"] = "full"
    """full: publish the whole base model with the merged tensors; tower: publish only the merged part of the model."""
    state: Literal["last", "every", "none"] = "last"
    """The published steps with the accumulated delta, which is needed to extend and verify the stream."""
    private: bool = False
    """The visibility of a repo that the run creates: true makes it private."""
    license: Text | None = None
    """The license in the model card, an identifier of the Hub; by default that of the base model's card."""
    license_name: Text | None = None
    """The name of the license if the Hub does not list it (`license: other`)."""
    license_link: Text | None = None
    """LICENSE, LICENSE.md or the web address of the license."""
    tags: tuple[Text, ...] = ()
    """Additional tags of the model card."""
    max_shard_size: Text = "5GB"
    """The largest size of a weight file: a number with KB, MB, GB or TB (powers of 1000), or KiB, MiB, GiB or TiB."""
    sign: SigningOption = None
    """keyless: sign each published step with the identity of the CI job; {key: FILE}: with a private key."""

    @field_validator("repo")
    @classmethod
    def _check_repo(cls, repo: str) -> str:
        if (problem := path_problem(repo)) is not None:
            raise InvalidReferenceError(problem)
        if is_local_path(repo) or "/" not in repo:
            raise InvalidReferenceError(f"{repo!r} is not a target repo: expected owner/name")
        return repo

    @field_validator("max_shard_size")
    @classmethod
    def _check_max_shard_size(cls, size: str) -> str:
        if parse_size(size) < 1:
            raise ValueError("expected a size of at least 1 byte")
        return size

    @property
    def max_shard_bytes(self) -> int:
        """The largest size of a weight file in bytes."""
        return parse_size(self.max_shard_size)
