"""What limits a rate, whoever made it: the protocol of what ``rate=`` takes beside a number."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["Rate"]


@runtime_checkable
class Rate(Protocol):
    """
    What ``rate=`` takes beside a number: a limiter of this process, or one that several share.

    Its ``rate`` tells it from a limiter whose ``acquire`` has to be followed by a release.
    """

    @property
    def rate(self) -> float:
        """Tokens that become available in some period."""
        ...

    async def acquire(self) -> None:
        """Wait for a token, and take it."""
