"""
What the log says of a server whose failures raise no error.

Promise: the first failure is logged, and then at most one a minute. Without that, a wrong password
would lift a limit for good, and nobody would know.
"""

from __future__ import annotations

import math
from logging import getLogger
from typing import TYPE_CHECKING, Final

from mtaio._internal import clock

if TYPE_CHECKING:
    from mtaio.exceptions import StoreError

__all__ = ["Outage"]

_QUIET: Final = 60.0
"""Seconds after a message in which no other is written."""


class Outage:
    """
    The failures of a server that raise no error.

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
