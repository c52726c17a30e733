"""
A slot that a process holds for a limited time, and keeps by renewing it.

Promise: a lease that is lost says so, by this process's clock, before the server lends the slot to
another process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final

import anyio

from mtaio._internal import clock
from mtaio.exceptions import LeaseLostError

__all__ = ["Holding", "Lease"]


class Holding:
    """
    A slot that this process holds, for the limiter; its `lease` is for the task that has the slot.

    Args:
        token: The fencing token of the slot.
        text: The limiter and its server, for messages.
        name: The limiter's name.
        until: Returns when the slot is lost.
        give_back: Called when the slot is released.
    """

    __slots__ = ("_give_back", "_name", "_reason", "_scope", "_state", "_text", "_until", "token")

    def __init__(
        self,
        token: int,
        text: str,
        name: str,
        until: Callable[[], float],
        give_back: Callable[[Holding], None],
    ) -> None:
        self.token: int = token
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
    def lease(self) -> Lease:
        """What the task that has the slot gets."""
        return Lease(self)

    @property
    def lost(self) -> bool:
        """Whether the slot was lost before it was released."""
        return self._state == "lost" or (self._state == "held" and clock.now() >= self._until())

    def enter(self) -> anyio.CancelScope:
        """Return a scope that is cancelled when the slot is lost; the caller enters it."""
        self._scope = scope = anyio.CancelScope()
        if self.lost:  # the process was suspended before the task could go on
            scope.cancel()
        return scope

    def lose(self, reason: str) -> None:
        """Mark the slot as lost, and cancel its block."""
        self._reason = reason
        self._state = "lost"
        if self._scope is not None:
            self._scope.cancel()

    def stand_alone(self) -> None:
        """Hold the slot without the server from here on, until it is released."""
        self._state = "alone"

    def check(self) -> None:
        """Raise `LeaseLostError` if the slot is lost."""
        if self.lost:
            msg = (
                f"{self._text} lost the lease with the token {self.token}: {self._reason}. Another "
                f"process may have the slot. Repeat the work, or pass a longer lease=."
            )
            raise LeaseLostError(msg, token=self.token, name=self._name)

    def release(self) -> None:
        """Give the slot back, unless it was already, or is lost."""
        if self._state in ("held", "alone"):
            self._state = "lost" if self.lost else "released"
            self._give_back(self)


@final
class Lease:
    """
    A slot of a `RedisConcurrencyLimiter`; returned by ``async with limiter`` and ``acquire()``.

    Example:
        Let the database refuse late writes from a process that was suspended while its lease
        expired:

        ```python
        async with limiter as lease:
            await database.execute(
                "UPDATE report SET body = $1, token = $2 WHERE token < $2",
                body,
                lease.token,
            )
        ```
    """

    __slots__ = ("_holding",)

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    def __repr__(self) -> str:
        return repr(self._holding)

    @property
    def token(self) -> int:
        """
        A number that increases with every slot that the server grants for the key.

        0 for a slot that was granted without the server, with ``on_failure="allow"``.
        """
        return self._holding.token

    @property
    def lost(self) -> bool:
        """
        Whether the lease was lost before it was released.

        Not a checkpoint; the server is not asked.
        """
        return self._holding.lost

    def check(self) -> None:
        """
        Raise an error if the slot is no longer held, for holders that do not use ``async with``.

        Not a checkpoint.

        Raises:
            LeaseLostError: The lease was lost.
        """
        self._holding.check()

    def release(self) -> None:
        """
        Release the slot. Repeated calls, and calls after the lease was lost, have no effect.

        Not a checkpoint. It can be called from any thread.
        """
        self._holding.release()
