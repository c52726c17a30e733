"""
A server that failed is left alone for some time, so that not every caller waits for its timeout.

Promise: after a call without an answer, those within the next pause fail at once; then a single
call finds out whether the server answers again. The pauses grow until it does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mtaio._internal import clock
from mtaio.exceptions import StoreError
from mtaio.redis._backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mtaio.redis._store import Store

__all__ = ["Breaker"]

T = TypeVar("T")

_PAUSES: Final = (0.1, 2.0)
"""Seconds for which the server is left alone: the first time, and at most."""


class Breaker:
    """
    Through which a server is called.

    Args:
        store: The server.

    Attributes:
        failed_calls: How many calls have failed; not those that were not made.
    """

    __slots__ = ("_failing", "_failure", "_pauses", "_retry_at", "_store", "failed_calls")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pauses = Backoff(*_PAUSES)
        self._failing = False
        self._failure = ""
        self._retry_at = -math.inf
        self.failed_calls = 0

    def is_open(self) -> bool:
        """Return whether a call would fail at once."""
        return clock.now() < self._retry_at

    def retry(self) -> None:
        """Let the next call find out whether the server answers."""
        self._retry_at = -math.inf

    def reset(self) -> None:
        """Forget what failed."""
        self._failing = False
        self._failure = ""
        self._pauses.reset()
        self._retry_at = -math.inf

    async def call(self, call: Coroutine[Any, Any, T]) -> T:
        """
        Await a call of the server.

        Raises:
            StoreError: It failed, or was not made because one failed a moment ago.
        """
        now = clock.now()
        if now < self._retry_at:
            call.close()
            left = self._retry_at - now
            msg = f"{self._store.name} failed, and is asked again in {left:.1f} s: {self._failure}"
            raise StoreError(msg, server=self._store.name)
        if self._failing:  # the others wait for the answer to this one
            self._retry_at = now + self._store.timeout
        try:
            answer = await call
        except StoreError as error:
            self.failed_calls += 1
            if error.refused:  # the server is there: a key of another type, no memory
                self.reset()
                raise
            self._failing = True
            self._failure = str(error)
            self._retry_at = clock.now() + self._pauses.next()
            raise
        if self._failing:
            self.reset()
        return answer
