"""
What a process does about a server that does not answer: pauses, a breaker, and a line in the log.

Promise: attempts become rarer the longer an outage lasts, and not every caller waits for its
timeout. The log says that a server is down where no error does: without that, a wrong password
would lift a limit for good, and nobody would know.
"""

from __future__ import annotations

import math
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mtaio._internal import clock
from mtaio.exceptions import StoreError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mtaio.redis._store import Store

__all__ = ["Backoff", "Breaker", "Outage"]

T = TypeVar("T")

_PAUSES: Final = (0.1, 2.0)
"""Seconds for which a breaker leaves the server alone: the first time, and at most."""

_QUIET: Final = 60.0
"""Seconds after a message in which no other is written."""


class Backoff:
    """
    Pauses that double, up to the longest, until `reset`.

    Args:
        first: Seconds of the first pause.
        longest: Seconds that no pause exceeds.
    """

    __slots__ = ("_first", "_longest", "_seconds")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._seconds = first

    def next(self) -> float:
        """Return the seconds to pause now; the next pause is twice as long."""
        seconds = self._seconds
        self._seconds = min(2 * seconds, self._longest)
        return seconds

    def reset(self) -> None:
        """Start with the first pause again."""
        self._seconds = self._first


class Outage:
    """
    The failures of a server that raise no error: the first is logged, and then one a minute.

    Args:
        on_failure: What is done in place of it.
    """

    __slots__ = ("_on_failure", "_quiet_until")

    def __init__(self, on_failure: str) -> None:
        self._on_failure = on_failure
        self._quiet_until = -math.inf

    def tell(self, owner: object, error: StoreError) -> None:
        """Log a failure, unless one was logged a moment ago."""
        now = clock.now()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _QUIET
        getLogger("mtaio.redis").warning(
            "%r: the server failed (on_failure=%r): %s", owner, self._on_failure, error
        )


class Breaker:
    """
    Through which a server is called that is left alone for some time after it has failed.

    After a call without an answer, those within the next pause fail at once; then a single call
    finds out whether the server answers again. The pauses grow until it does.

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
