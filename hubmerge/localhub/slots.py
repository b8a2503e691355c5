"""Limit of the bodies that a user sends at the same time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class Slots:
    """Number of requests of each user whose bodies are received at the same time. Further ones wait unread.

    Args:
        each: the number for each user.
    """

    def __init__(self, each: int) -> None:
        self._each = each
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def take(self, user: str) -> AsyncIterator[None]:
        """Wait for a slot of a user, and hold it."""
        self._users[user] += 1
        semaphore = self._semaphores.setdefault(user, asyncio.Semaphore(self._each))
        try:
            async with semaphore:
                yield
        finally:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user], self._semaphores[user]
