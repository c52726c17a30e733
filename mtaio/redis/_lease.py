"""
One slot that a process holds for a time, and holds on to by telling the server again.

Promise: a lease that is lost says so, by this process's clock before the server gives the slot to
another process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anyio

from mtaio._internal import clock
from mtaio.exceptions import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lease"]


class Lease:
    """
    A slot of a `RedisConcurrencyLimiter`; what ``async with limiter`` and ``acquire()`` return.

    Example:
        Let the database refuse what comes late, from a process that stood still while its lease ran
        out::

            async with limiter as lease:
                await database.execute(
                    "UPDATE report SET body = $1, token = $2 WHERE token < $2", body, lease.token
                )
    """

    __slots__ = ("_give_back", "_name", "_reason", "_scope", "_state", "_text", "_until", "token")

    token: int
    """
    A number that grows with each slot granted, in the order in which the server grants them.

    0 for a slot granted without the server, with ``on_failure="open"``.
    """

    def __init__(
        self,
        token: int,
        text: str,
        name: str,
        until: Callable[[], float],
        give_back: Callable[[Lease], None],
    ) -> None:
        self.token = token
        self._text = text
        self._name = name
        self._until = until
        self._give_back = give_back
        self._state: Literal["held", "alone", "released", "lost"] = "held"
        self._reason = "it was not renewed in time"
        self._scope: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        lost = self._state == "held" and self.lost
        return f"<Lease {self.token} of {self._text}: {'lost' if lost else self._state}>"

    @property
    def lost(self) -> bool:
        """Whether it was lost before it was given back. Not a checkpoint; asks the clock alone."""
        return self._state == "lost" or (self._state == "held" and clock.now() >= self._until())

    def check(self) -> None:
        """
        Make sure that the slot is held still; for a holder that does not use ``async with``.

        Not a checkpoint.

        Raises:
            LeaseLostError: It is lost.
        """
        if self.lost:
            raise self.error()

    def release(self) -> None:
        """Give the slot back; nothing if that was done, or it is lost. Not a checkpoint."""
        if self._state in ("held", "alone"):
            self._state = "lost" if self.lost else "released"
            self._give_back(self)

    # For the limiter

    def enter(self) -> anyio.CancelScope:
        """Return a scope that is cancelled when the lease is lost; entered by the caller."""
        self._scope = scope = anyio.CancelScope()
        if self.lost:  # the process stood still before the task could go on
            scope.cancel()
        return scope

    def lose(self, reason: str) -> None:
        """Cancel what it was held for."""
        self._reason = reason
        self._state = "lost"
        if self._scope is not None:
            self._scope.cancel()

    def stand_alone(self) -> None:
        """Hold it from here on without the server, until it is given back."""
        self._state = "alone"

    def error(self) -> LeaseLostError:
        """Return what is raised when it is lost."""
        msg = (
            f"{self._text} lost the lease with the token {self.token}: {self._reason}. Another "
            f"process may have the slot. Repeat the work, or pass a longer lease=."
        )
        return LeaseLostError(msg, token=self.token, name=self._name)
