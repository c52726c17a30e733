"""What makes one of several processes do something, whoever made it: what ``leader=`` takes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Leader", "Term"]


class Term(Protocol):
    """
    The time for which one process leads.

    A tick is a moment in seconds since 1970 at which a run is due, and the same number in every
    process. What either method raises ends the term for the caller, which waits for the next.
    """

    async def last_tick(self, schedule: str) -> float | None:
        """Return the last tick that any process has claimed; None if there is none."""
        ...

    async def claim_tick(self, schedule: str, tick: float) -> bool:
        """
        Claim a tick, before the run that is due then.

        Args:
            schedule: The name of what is run.
            tick: The moment.

        Returns:
            Whether this process may make the run: no later process leads, and nobody has claimed
            that tick or one after it.
        """
        ...


class Leader(Protocol):
    """What ``leader=`` takes, such as a `mtaio.redis.RedisLeader`."""

    async def wait_leader(self) -> None:
        """Wait until this process leads. A checkpoint."""
        ...

    def hold(self) -> AbstractContextManager[Term]:
        """
        Return a block that is cancelled when this process leads no more, for the running task.

        Raises:
            LeaseLostError: When the block is entered: this process does not lead; where it ends: it
                leads no more.
        """
        ...
