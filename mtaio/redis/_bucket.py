"""
The token bucket, or window, that processes share, and what one of them has reserved of it.

Promise: tokens are reserved in the order of the calls, each for the time at which it is due, by the
server's clock. A process that has its share of the tokens that are soon due gets no more. None is
granted before it is due or after its time is over; those that are too late are counted as lost.
A window counts a token for a task that waits at the last moment at which it may be granted, so that
no delay brings more than the limit into any ``per`` seconds.
Cost: the server keeps two numbers, and the names of the processes that asked within a second; for a
window also some thousand moments with what was granted at each, however large the limit is.
Why a moment and not a counter: docs/en/design/rate-limiting.md; why windows: redis.md.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio.redis._store import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtaio.redis._store import Store

__all__ = ["RESERVE", "RESERVE_IN_WINDOW", "Reserved", "SharedBucket", "SharedWindow", "Stock"]

_STEPS: Final = 1000
"""A window knows the time of a grant to this part of its length, rounded up."""

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

# KEYS: the tokens in the list, and when that was written; the processes that asked lately; a list
# of "moment tokens": until when some tokens may be granted, by which they count, ascending.
# ARGV: as above, but for the length of the window in place of the first and its limit in place of
# the second; at the end how late a token may be granted, and the length of a step of the list.
# Returns: how many are granted; microseconds until as many as were needed are due, after these; the
# busy processes; how many tokens a process may hold; and then in turn microseconds until some of
# those granted are due, and how many.
#
# A token may follow the one that is `limit` places before it in the list, `per` after that one's
# moment. Any limit + 1 tokens hold two that are a multiple of `limit` places apart, hence at least
# `per` seconds; that also holds where a later token counts at an earlier moment.
RESERVE_IN_WINDOW: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local per, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local needed, most, held = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local ahead, within = tonumber(ARGV[6]), tonumber(ARGV[7])
local late, step = tonumber(ARGV[9]), tonumber(ARGV[10])
local used, seen = string.match(redis.call('GET', KEYS[1]) or '0 0', '(%S+) (%S+)')
used, seen = tonumber(used), tonumber(seen)
local function read(place)
  local entry = redis.call('LINDEX', KEYS[3], place)
  if not entry then return nil end
  local moment, tokens = string.match(entry, '(%S+) (%S+)')
  return tonumber(moment), tonumber(tokens)
end
local function keep()
  local left = math.max(0, (read(-1) or now) + per - now)
  left = math.ceil(left / 1000) + 1000
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', used, now), 'PX', left)
  redis.call('PEXPIRE', KEYS[3], left)
end
if now < seen then -- the server's clock has been set back
  local entries = redis.call('LRANGE', KEYS[3], 0, -1)
  redis.call('DEL', KEYS[2], KEYS[3])
  for _, entry in ipairs(entries) do
    local moment, tokens = string.match(entry, '(%S+) (%S+)')
    redis.call('RPUSH', KEYS[3], string.format('%.0f %s', moment - seen + now, tokens))
  end
  keep()
end
local moment, tokens = read(0)
if not moment then used = 0 end
local left_it = moment and moment + per <= now
while moment and moment + per <= now do -- these have left the window
  redis.call('LPOP', KEYS[3])
  used = used - tokens
  moment, tokens = read(0)
end
if left_it or needed == 0 then keep() end
if needed == 0 then return {0, '0', 1, 0} end
redis.call('ZADD', KEYS[2], now, ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 1000000)
redis.call('PEXPIRE', KEYS[2], 2000)
local busy = redis.call('ZCARD', KEYS[2])

-- When the next tokens are due: groups of a moment and how many.
local groups, known, look = {}, 0, 2 * math.max(needed, most) + busy * (most + held)
local free, due, place = limit - used, now, 0
while true do
  if free > 0 then
    groups[#groups + 1] = {due, free}
    known, free = known + free, 0
  end
  moment, tokens = read(place)
  if known >= look or not moment then break end
  due, free, place = math.max(due, moment + per), free + tokens, place + 1
end
local function due_of(count)
  for _, group in ipairs(groups) do
    count = count - group[2]
    if count <= 0 then return group[1] end
  end
  return due + per
end
local function due_until(moment)
  local count = 0
  for _, group in ipairs(groups) do
    if group[1] > moment then break end
    count = count + group[2]
  end
  return count
end
local share = math.floor(due_until(now + ahead) / busy)
local first = due_of(needed)
if first > now + within then return {0, string.format('%.0f', first - now), busy, share} end
local room = share - held
if within == 0 then room, late = due_until(now), 0 end
local taken = math.max(needed, math.min(most, room))
if within == 0 then taken = taken - taken % needed end
local answer = {taken, string.format('%.0f', due_of(taken + needed) - now), busy, share}
local left = taken
for _, group in ipairs(groups) do
  if left == 0 then break end
  local part = math.min(left, group[2])
  left = left - part
  answer[#answer + 1] = string.format('%.0f', group[1] - now)
  answer[#answer + 1] = part
  local until_ = math.ceil((group[1] + late) / step) * step
  moment, tokens = read(-1)
  if moment and moment >= until_ then
    redis.call('LSET', KEYS[3], -1, string.format('%.0f %.0f', moment, tokens + part))
  else
    redis.call('RPUSH', KEYS[3], string.format('%.0f %.0f', until_, part))
  end
end
used = used + taken
keep()
return answer
""")


class Reserved(NamedTuple):
    """What the server answers."""

    due: Sequence[float]
    """Seconds until each token that was reserved may be granted."""
    next: float
    """Seconds until as many as were needed would be due after these, or in place of them."""
    processes: int
    """How many processes asked within a second."""
    share: int
    """How many tokens a process may hold."""

    @property
    def tokens(self) -> int:
        """How many were reserved."""
        return len(self.due)


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
        tokens, first, processes, share = answer
        wait, interval = float(first) / 1e6, self._interval / 1e6
        due = [wait + count * interval for count in range(tokens)]
        if tokens:
            wait += (tokens + needed - 1) * interval
        return Reserved(due, wait, processes, share)


class SharedWindow:
    """
    The sliding window of one key; with another limit or length it is another window.

    Args:
        store: The server.
        key: What is limited.
        limit: The tokens that may be granted in any ``per`` seconds.
        per: The length of the window in seconds.
        ahead: As for `SharedBucket`.
        slack: How many seconds after it is due a token may be granted.
    """

    __slots__ = ("_ahead", "_keys", "_limit", "_per", "_slack", "_step", "_store")

    def __init__(
        self, store: Store, key: str, *, limit: int, per: float, ahead: float, slack: float
    ) -> None:
        self._store = store
        base = f"mtaio:rate:{{{key}}}:window:{limit}:{float(per)!r}"
        self._keys = (base, f"{base}:busy", f"{base}:grants")
        self._limit = limit
        self._per = per * 1e6
        self._ahead = ahead * 1e6
        self._slack = slack * 1e6
        self._step = math.ceil(self._per / _STEPS)

    async def reserve(
        self, process: str, needed: int, *, of_use: int, held: int, within: float
    ) -> Reserved:
        """Reserve tokens, as `SharedBucket.reserve` does."""
        limits = (self._per, self._limit, needed, of_use, held, self._ahead, within * 1e6)
        answer = await self._store.script(
            RESERVE_IN_WINDOW, self._keys, (*limits, process, self._slack, self._step)
        )
        _, wait, processes, share, *groups = answer
        due: list[float] = []
        for after, tokens in zip(groups[::2], groups[1::2], strict=True):
            due += [float(after) / 1e6] * tokens
        return Reserved(due, float(wait) / 1e6, processes, share)


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
