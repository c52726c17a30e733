"""
The token bucket that processes share, as the server keeps it, and what one of them has reserved.

Promise: tokens are reserved in the order of the calls, each for the time at which it is due, by the
server's clock. A process that has its share of the tokens that are soon due gets no more. None is
granted before it is due or after its time is over; those that are too late are counted as lost.
Cost: the server keeps two numbers, and the names of the processes that asked within a second.
Why a moment and not a counter: docs/en/design/rate-limiting.md.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio.redis._store import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtaio.redis._store import Store

__all__ = ["RESERVE", "Reserved", "SharedBucket", "Stock"]

# KEYS: when the bucket is full again, and when that was written, in microseconds; the processes
# that asked lately.
# ARGV: microseconds per token, burst, tokens needed (0: none, only see whether the server lets us
# write), tokens of use, tokens held, how far ahead in microseconds any process reserves, how far
# ahead this call may, who asks.
# Returns: how many are granted; microseconds until the first of them is due (or, if none, the
# tokens needed), which is negative where it has been; the busy processes; how many tokens a process
# may hold.
RESERVE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local needed, most, held = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local ahead, within = tonumber(ARGV[6]), tonumber(ARGV[7])
local full, seen = string.match(redis.call('GET', KEYS[1]) or '0 0', '(%S+) (%S+)')
full, seen = tonumber(full), tonumber(seen)
local function keep()
  local left = math.max(0, math.ceil((full - now) / 1000))
  redis.call('SET', KEYS[1], string.format('%.3f %.0f', full, now), 'PX', left + 1000)
end
if now < seen then -- the server's clock has been set back
  full = full - seen + now
  redis.call('DEL', KEYS[2])
  keep()
end
if full < now then full = now end
local first = full + (1 - burst) * interval - now
if needed == 0 then
  keep()
  return {0, string.format('%.3f', first), 1, 0}
end
redis.call('ZADD', KEYS[2], now, ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1000000)
redis.call('PEXPIRE', KEYS[2], 2000)
local busy = redis.call('ZCARD', KEYS[2])
local share = math.floor((ahead + math.max(0, -first)) / interval / busy)
local due = first + (needed - 1) * interval
if due > within then return {0, string.format('%.3f', due), busy, share} end
local free = share - held
if within == 0 then free = math.floor(-first / interval) + 1 end
local taken = math.max(needed, math.min(most, free))
if within == 0 then taken = taken - taken % needed end
full = full + taken * interval
keep()
return {taken, string.format('%.3f', first), busy, share}
""")


class Reserved(NamedTuple):
    """What the server answers."""

    tokens: int
    """How many were reserved."""
    due: float
    """Seconds until the first of them may be granted, or, if none, all that were needed."""
    processes: int
    """How many processes asked within a second."""
    share: int
    """How many tokens a process may hold."""


class SharedBucket:
    """
    The bucket of one key; with another rate or burst it is another bucket.

    Args:
        store: The server.
        key: What is limited.
        interval: Seconds for one token.
        burst: The tokens that the full bucket holds.
        ahead: How many seconds before a token is due a process may reserve it.
    """

    __slots__ = ("_ahead", "_burst", "_interval", "_keys", "_store")

    def __init__(
        self, store: Store, key: str, *, interval: float, burst: int, ahead: float
    ) -> None:
        self._store = store
        base = f"mtaio:rate:{{{key}}}:{burst}:{interval!r}"
        self._keys = (base, f"{base}:busy")
        self._interval = interval * 1e6
        self._burst = burst
        self._ahead = ahead * 1e6

    async def reserve(
        self, process: str, needed: int, *, of_use: int, held: int, within: float
    ) -> Reserved:
        """
        Reserve tokens: all that are needed, or none.

        Args:
            process: Who asks.
            needed: How many tokens; 0 to reserve nothing.
            of_use: How many could be used.
            held: How many this process has reserved already.
            within: Seconds within which the tokens that are needed have to be due.
        """
        limits = (self._interval, self._burst, needed, of_use, held, self._ahead, within * 1e6)
        answer = await self._store.script(RESERVE, self._keys, (*limits, process))
        tokens, due, processes, share = answer
        return Reserved(tokens, float(due) / 1e6, processes, share)

    async def ping(self) -> None:
        """Find out whether the server answers, and takes what is written. Reserves nothing."""
        await self.reserve("", 0, of_use=0, held=0, within=0.0)


class Stock:
    """
    The tokens that a process has reserved and not granted yet, in the order of their times.

    Attributes:
        lost: How many were not used in time.
    """

    __slots__ = ("_tokens", "lost")

    def __init__(self) -> None:
        self._tokens: deque[tuple[float, float]] = deque()
        self.lost = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, seconds: Iterable[float], since: float, until: float) -> None:
        """
        Add tokens to the end.

        Args:
            seconds: For each token, how long after both moments it falls due.
            since: From when the first of them could be granted.
            until: When it would be lost.
        """
        self._tokens.extend([(since + after, until + after) for after in seconds])

    def due(self, count: int) -> float:
        """Return when the first ``count`` tokens may be granted; ``inf`` if there are fewer."""
        return self._tokens[count - 1][0] if count <= len(self._tokens) else math.inf

    def take(self, count: int) -> None:
        """Remove the first ``count`` tokens: they are granted."""
        for _ in range(count):
            self._tokens.popleft()

    def drop(self, now: float) -> bool:
        """Remove the tokens whose time is over; return whether there were any."""
        tokens = self._tokens
        if not tokens or tokens[0][1] >= now:
            return False
        while tokens and tokens[0][1] < now:
            tokens.popleft()
            self.lost += 1
        return True

    def clear(self) -> None:
        """Forget every token."""
        self._tokens.clear()
