"""
Changes that other processes confirm to the one that made them.

Promise: a confirmation that comes before it is waited for counts; one that comes too late does
nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Answers", "Confirmations"]


class Answers:
    """
    The answers to one change.

    Attributes:
        count: How many processes have confirmed it.
    """

    __slots__ = ("_more", "count")

    def __init__(self) -> None:
        self.count = 0
        self._more = anyio.Event()

    def add(self) -> None:
        """Count one more."""
        self.count += 1
        self._more.set()
        self._more = anyio.Event()

    async def wait(self, count: int) -> None:
        """Wait until there are ``count``."""
        while self.count < count:
            await self._more.wait()


class Confirmations:
    """The changes whose answers are waited for, by their tokens."""

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: dict[str, Answers] = {}

    @contextmanager
    def expect(self, token: str) -> Generator[Answers]:
        """Count the answers to a change while the block lasts."""
        self._expected[token] = answers = Answers()
        try:
            yield answers
        finally:
            del self._expected[token]

    def hear(self, token: str) -> None:
        """Count an answer."""
        answers = self._expected.get(token)
        if answers is not None:
            answers.add()
