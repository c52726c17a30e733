"""
What a process does about a server that does not answer: pauses, and a line in the log.

Promise: attempts become rarer the longer an outage lasts. The log says that a server is down where
no error does: without that, a wrong password would lift a limit for good, and nobody would know.
"""

from __future__ import annotations

import math
from logging import getLogger
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock

if TYPE_CHECKING:
    from mtaio.exceptions import StoreError

__all__ = ["Backoff", "Outage"]

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
