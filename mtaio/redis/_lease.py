"""
A slot that a process holds for a limited time, and keeps by renewing it.

Promise: a lease that is lost says so, by this process's clock, before the server lends the slot to
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
        Let the database refuse late writes, from a process that was suspended while its lease ran
        out::

            async with limiter as lease:
                await database.execute(
                    "UPDATE report SET body = $1, token = $2 WHERE token < $2", body, lease.token
                )
    """

    __slots__ = ("_give_back", "_name", "_reason", "_scope", "_state", "_text", "_until", "token")

    token: int
    """
    A number that grows with every slot that the server grants for the key.

    0 for a slot granted without the server, with ``on_failure="allow"``.
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
        """Whether the lease was lost before it was released. Not a checkpoint; no call is made."""
        return self._state == "lost" or (self._state == "held" and clock.now() >= self._until())

    def check(self) -> None:
        """
        Raise if the slot is no longer held. For holders that do not use ``async with``.

        Not a checkpoint.

        Raises:
            LeaseLostError: The lease is lost.
        """
        if self.lost:
            raise self.error()

    def release(self) -> None:
        """
        Give the slot back, unless it was already, or the lease is lost. Not a checkpoint.

        From any thread.
        """
        if self._state in ("held", "alone"):
            self._state = "lost" if self.lost else "released"
            self._give_back(self)

    # For the limiter

    def enter(self) -> anyio.CancelScope:
        """Return a scope that is cancelled when the lease is lost; the caller enters it."""
        self._scope = scope = anyio.CancelScope()
        if self.lost:  # the process was suspended before the task could go on
            scope.cancel()
        return scope

    def lose(self, reason: str) -> None:
        """Mark the lease as lost, and cancel its block."""
        self._reason = reason
        self._state = "lost"
        if self._scope is not None:
            self._scope.cancel()

    def stand_alone(self) -> None:
        """Hold the slot without the server from here on, until it is released."""
        self._state = "alone"

    def error(self) -> LeaseLostError:
        """Return the error for a lease that is lost."""
        msg = (
            f"{self._text} lost the lease with the token {self.token}: {self._reason}. Another "
            f"process may have the slot. Repeat the work, or pass a longer lease=."
        )
        return LeaseLostError(msg, token=self.token, name=self._name)
