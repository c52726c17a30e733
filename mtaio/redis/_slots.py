"""
The slots that processes share, as the server keeps them: one script, and when it is called.

Promise: no more than ``limit`` slots are granted, and the slots of a process that is silent for its
lease become free. A process reports what it holds in absolute numbers, so a call that is lost, or
whose answer is lost, does no harm: the next one puts things right. Tokens only grow.
A process calls as soon as something has changed, unless the last call failed; three times in each
lease while slots are held; and while tasks wait once a second, more often without messages.
Cost: some ten commands within the script; the state grows with the processes, not with the slots.
Why the server keeps no queue of tasks: docs/en/design/redis.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio._internal import clock
from mtaio.redis._outage import Backoff
from mtaio.redis._store import Script

if TYPE_CHECKING:
    from mtaio.redis._store import Store

__all__ = ["EXCHANGE", "Answer", "Pace", "Report", "SharedSlots", "keys_of"]

_PROMISE: Final = 0.05
"""Seconds for which a slot is kept for a process that was sent a message to fetch it."""

_BEAT: Final = 1 / 3
"""The part of the lease after which it is renewed."""

_LOOK: Final = 1.0
"""Seconds after which a process that waits calls again, although it was sent no message."""

_POLL: Final = (0.02, 0.32)
"""The same while no messages arrive: at first, and at most."""

_RETRY: Final = (0.05, 1.0)
"""Seconds after a call that failed: at first, and at most."""

_ROUNDING: Final = 0.001
"""Seconds added to a time at which something ends at the server."""

# KEYS: a hash with the state; the processes by the end of their lease; those that wait, by their
# turn; those that were promised slots, by when that ends. All times are in microseconds.
# ARGV: which process, in the form "process/epoch"; the number of the call, which grows; the slots
# that are held; the tasks that wait; the limit; the lease; how long a promise lasts.
# Returns: 1, or 0 if the lease is lost; how many slots are granted; the first of their tokens; the
# slots held by all; the processes; the microseconds after which to ask again, or 0; how many slots
# are kept for others that were sent a message.
#
# Fields of the state: "total" held by all, "promised" to all, "turn" and "token" given last, "seen"
# when the script ran last, "quiet" until when nothing is granted; and for a process "h:" held,
# "n:" number of the last call, "w:" tasks that wait, "p:" slots promised.
#
# A waiting process is served by the slots it has, then by its turn: score = slots * 1e10 + turn.
EXCHANGE: Final = Script("""
local state, members, waiting, promises = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me, number = ARGV[1], tonumber(ARGV[2])
local held, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local limit, lease, promise = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local BASE = 1e10
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local got = redis.call('HMGET', state, 'total', 'promised', 'turn', 'token', 'seen', 'quiet',
    'h:' .. me, 'n:' .. me, 'p:' .. me)
local total, promised = tonumber(got[1] or '0'), tonumber(got[2] or '0')
local turn, token = tonumber(got[3] or '0'), tonumber(got[4] or '0')
local seen, quiet = tonumber(got[5] or '0'), tonumber(got[6] or '0')
local before, last, mine = tonumber(got[7] or '0'), tonumber(got[8] or '0'), tonumber(got[9] or '0')

-- After a restart the server may have forgotten slots that are in use still: a lease's time long
-- those that hold some may say so, and none is granted.
if now - seen > 100000 or now < seen then
  local found = redis.pcall('INFO', 'server')
  local up = type(found) == 'string' and tonumber(string.match(found, 'uptime_in_seconds:(%d+)'))
  if up and up * 1000000 < lease and quiet < now then quiet = now + lease - up * 1000000 end
end
if now < seen then -- the server's clock has been set back: no time it gave lies further ahead
  quiet = math.min(quiet, now + lease)
  for key, longest in pairs({[members] = lease, [promises] = promise}) do
    for _, each in ipairs(redis.call('ZRANGEBYSCORE', key, now + longest, '+inf')) do
      redis.call('ZADD', key, now + longest, each)
    end
  end
end
local silent = quiet > now

-- What those that are gone held, and what was not fetched in time, is free again.
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', now)) do
  total = total - tonumber(redis.call('HGET', state, 'h:' .. gone) or '0')
  promised = promised - tonumber(redis.call('HGET', state, 'p:' .. gone) or '0')
  redis.call('HDEL', state, 'h:' .. gone, 'n:' .. gone, 'w:' .. gone, 'p:' .. gone)
  redis.call('ZREM', members, gone)
  redis.call('ZREM', waiting, gone)
  redis.call('ZREM', promises, gone)
  if gone == me then before, last, mine = 0, 0, 0 end
end
for _, late in ipairs(redis.call('ZRANGEBYSCORE', promises, '-inf', now)) do
  promised = promised - tonumber(redis.call('HGET', state, 'p:' .. late) or '0')
  redis.call('HDEL', state, 'p:' .. late)
  redis.call('ZREM', promises, late)
  if late == me then mine = 0 end
end

local known = redis.call('ZSCORE', members, me)
-- A call that came late: nobody waits for its answer.
if known and number <= last then
  redis.call('HSET', state, 'total', total, 'promised', promised)
  return {1, 0, 0, total, 0, 0, 0}
end
if held > before and (not (known or silent) or total + held - before > limit) then
  redis.call('HSET', state, 'total', total, 'promised', promised, 'seen', now, 'quiet', quiet)
  return {0, 0, 0, total, redis.call('ZCARD', members), 0, 0}
end
total = total + held - before

local score = redis.call('ZSCORE', waiting, me)
if score then
  redis.call('ZREM', waiting, me)
  score = held * BASE + tonumber(score) % BASE
else
  turn = (turn + 1) % BASE
  score = held * BASE + turn
end
if mine > 0 then
  promised = promised - mine
  redis.call('ZREM', promises, me)
end

local free = limit - total - promised
local taken, calls = 0, {}
if silent then free = 0 end
if free > 0 then
  taken = math.min(mine, want, free)
  free = free - taken
  if taken > 0 then
    turn = (turn + 1) % BASE
    score = (held + taken) * BASE + turn
  end
end
while free > 0 do
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  if taken < want and (not first[1] or score <= tonumber(first[2])) then
    local part = 1
    if not first[1] then part = math.min(want - taken, free) end
    taken, free, turn = taken + part, free - part, (turn + 1) % BASE
    score = (held + taken) * BASE + turn
  elseif first[1] then
    local other = first[1]
    local count = (calls[other] or 0) + 1
    calls[other], promised, free = count, promised + 1, free - 1
    if count >= tonumber(redis.call('HGET', state, 'w:' .. other) or '1') then
      redis.call('ZREM', waiting, other)
    else
      redis.call('ZADD', waiting, tonumber(first[2]) + BASE, other)
    end
  else
    break
  end
end
local ask, kept = 0, 0
for other, count in pairs(calls) do
  redis.call('ZREM', waiting, other)
  redis.call('ZADD', promises, now + promise, other)
  redis.call('HINCRBY', state, 'p:' .. other, count)
  redis.call('PUBLISH', state .. ':' .. string.match(other, '^[^/]*'), count)
  kept = kept + count
end

local first = math.max(token + 1, now)
if taken > 0 then token = first + taken - 1 end
held = held + taken
total = total + taken
if held + want == 0 then
  redis.call('ZREM', members, me)
  redis.call('HDEL', state, 'h:' .. me, 'n:' .. me, 'w:' .. me, 'p:' .. me)
else
  redis.call('ZADD', members, now + lease, me)
  redis.call('HSET', state, 'h:' .. me, held, 'n:' .. me, number, 'w:' .. me, want - taken)
  if mine > 0 then redis.call('HDEL', state, 'p:' .. me) end
end
if want > taken then
  redis.call('ZADD', waiting, held * BASE + score % BASE, me)
  local earliest = redis.call('ZRANGE', members, 0, 0, 'WITHSCORES')
  ask = tonumber(earliest[2]) - now
  if silent then ask = math.min(ask, quiet - now) end
end
redis.call('HSET', state, 'total', total, 'promised', promised, 'turn', turn,
    'token', string.format('%.0f', token), 'seen', string.format('%.0f', now),
    'quiet', string.format('%.0f', quiet))
redis.call('PEXPIRE', state, math.max(86400000, math.ceil(lease / 500)))
for index = 2, 4 do redis.call('PEXPIRE', KEYS[index], math.ceil(lease / 1000) + 60000) end
return {1, taken, first, total, redis.call('ZCARD', members), math.ceil(ask), kept}
""")


class Report(NamedTuple):
    """What a process reports to the script."""

    process: str
    """Which one, in the form ``"process/epoch"``."""
    number: int
    """The number of the call: higher than that of the one before."""
    held: int
    """Slots that the process holds."""
    waiting: int
    """Tasks of it that wait."""
    limit: int
    """Slots for all processes."""
    lease: float
    """Microseconds."""
    promise: float = _PROMISE * 1e6
    """Microseconds for which slots are kept for others."""


class Answer(NamedTuple):
    """What the script answers."""

    in_force: int
    """0 if the lease is lost, and with it the slots that the process reported."""
    granted: int
    first_token: int
    """The token of the first slot granted; the others have the numbers after it."""
    total: int
    """Slots held by all processes."""
    members: int
    """Processes that hold slots or wait for some."""
    ask_again: int
    """Microseconds after which to call again even without a message; 0 if there is no need."""
    kept: int
    """Slots kept for other processes, which may be dead: call again when that time is over."""


class SharedSlots:
    """
    The slots of one key.

    Args:
        store: The server.
        key: What is limited.
    """

    __slots__ = ("_keys", "_store")

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._keys = keys_of(key)

    async def exchange(self, report: Report) -> Answer:
        """Report what this process holds and wants; return what it gets."""
        return Answer(*await self._store.script(EXCHANGE, self._keys, report))

    def channel(self, process: str) -> str:
        """Return the channel on which a process learns that slots are kept for it."""
        return f"{self._keys[0]}:{process}"


def keys_of(key: str) -> list[str]:
    """Return the names of the keys, all in one slot of a cluster."""
    base = f"mtaio:slots:{{{key}}}"
    return [base, f"{base}:members", f"{base}:waiting", f"{base}:promises"]


class Pace:
    """
    When to call next.

    Args:
        lease: Seconds for which slots are lent.

    Attributes:
        changed: Whether there is a change to report.
    """

    __slots__ = (
        "_due",
        "_kept_until",
        "_lease",
        "_messages",
        "_not_before",
        "_poll",
        "_retry",
        "changed",
    )

    def __init__(self, lease: float) -> None:
        self.changed = False
        self._lease = lease
        self._due: float = math.inf
        self._not_before: float = -math.inf
        self._kept_until: float = -math.inf
        self._retry = Backoff(*_RETRY)
        self._messages = False
        self._poll = Backoff(*_POLL)

    def retry_now(self) -> None:
        """Have a change reported at once, even if the last call failed just now."""
        self._not_before = -math.inf

    def due(self) -> float:
        """Return when to call."""
        return self._not_before if self.changed else self._due

    def listen(self, *, messages: bool) -> None:
        """Note whether messages of the server arrive from here on."""
        self._messages = messages
        self._poll.reset()

    def answered(self, sent: float, answer: Answer, *, holds: bool, waits: bool) -> None:
        """
        Plan the next call after one that was answered.

        Args:
            sent: When the call was made.
            answer: What the server said.
            holds: Whether this process holds slots.
            waits: Whether tasks of it wait.
        """
        self._retry.reset()
        self._not_before = -math.inf
        now = clock.now()
        due = math.inf
        if holds:
            due = sent + self._lease * _BEAT
        if answer.ask_again:
            due = min(due, now + answer.ask_again / 1e6 + _ROUNDING)
        if answer.kept:
            self._kept_until = now + _PROMISE + _ROUNDING
        if self._kept_until > now:
            due = min(due, self._kept_until)
        if waits:
            due = min(due, sent + min(self._lease * _BEAT, _LOOK))
            if not self._messages:
                due = min(due, sent + self._poll.next())
        self._due = due

    def failed(self) -> None:
        """Plan the next call after one that failed."""
        self.changed = True
        self._not_before = clock.now() + min(self._retry.next(), self._lease / 20)
