"""A service that limits as Discord does: windows that begin with their first request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Hashable
    from random import Random

    from mtaio.clients import ServerBuckets

TICK = 1e-6


class Service:
    """
    Counts requests, and says how things stand, after some time on the way.

    Args:
        limit: The requests that it allows in a window.
        seconds: How long a window is.
        random: Says how long each way takes; None for no time at all.
        bucket: What it calls the limit.
    """

    def __init__(
        self,
        limit: int,
        seconds: float,
        random: Random | None = None,
        *,
        bucket: str | None = None,
    ) -> None:
        self.limit = limit
        self.seconds = seconds
        self.random = random
        self.bucket = bucket
        self.ends = 0.0
        self.used = 0
        self.refused = 0
        self.moments: list[float] = []

    async def _way(self) -> None:
        await checkpoint() if self.random is None else await anyio.sleep(self.random.random() * 0.3)

    def count(self) -> tuple[bool, dict[str, str]]:
        """Count a request at this moment, and return whether it is refused, and the headers."""
        now = anyio.current_time()
        if now >= self.ends - TICK:
            self.used, self.ends = 0, now + self.seconds
        refused = self.used >= self.limit
        self.refused += refused
        if not refused:
            self.used += 1
            self.moments.append(now)
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.limit - self.used),
            "X-RateLimit-Reset-After": f"{self.ends - now:.9f}",
        }
        if self.bucket is not None:
            headers["X-RateLimit-Bucket"] = self.bucket
        return refused, headers

    async def ask(self, buckets: ServerBuckets, route: Hashable = "r") -> bool:
        """Make a request as the buckets allow it, and return whether it was accepted."""
        async with buckets.take(route) as slot:
            await self._way()
            refused, headers = self.count()
            await self._way()
            slot.observe(headers, refused=refused)
            return not refused
