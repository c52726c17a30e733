"""
Several limits that processes take from together: buckets, as the server keeps them.

Promise: a request is granted all that it costs in one step of the server, or nothing. Of each limit
it leaves what those in front of it need: the first request of every process that waits is in a line
at the server, in the order of coming, and one that has got something goes to its end. What is given
back is never more than the bucket would hold if less had been taken in the first place.
Cost: for each limit a number, and some sixty moments at most; for each process in the line what its
first request costs. A process that is in the line calls once a second, and when it is due.
Why a line, and nothing reserved: docs/en/design/redis.md. Why not all that is given back comes
back: mtaio/resources/_share.py. What comes back has been lacking too much at each moment since the
take, so that it is subtracted from all that was noted since: else two takes that are settled one
after the other would get back the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mtaio.redis._store import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtaio.redis._store import Argument, Store

__all__ = ["TAKE", "Answer", "Correction", "LimitSpec", "Report", "SharedLevels"]

# KEYS: a hash with the state; the line, by turns; the processes that called lately; and for each
# limit a list of "number lack", both ascending: from the call with the number before that one to
# this one the bucket has always lacked as much.
# ARGV: who; how many limits; for how long to hold, -1 for not at all; for how long who waits stays
# in the line without a call; how many corrections; how many requests. Then for each limit its name,
# tokens, the time for so many, the share that is there at first, and what was observed: another
# number of tokens, and what is left, or "". For each correction the number of a call, and what
# comes back of each limit. For each request what it costs of each limit.
# Returns: how many requests are granted; the number of this call; microseconds until the next would
# be due, or 0; for how many all is held; the processes; and for each limit its tokens, and how many
# there are.
#
# All times are in microseconds. The numbers of calls ascend, also if the server forgets: each is
# the time, or the last one plus one. Fields of the state: "seen", "hold", "turn", "call"; for a
# limit "f:" when its bucket is full, "n:" its tokens and what was observed in their place; for a
# process in the line "c:" what its first request costs, "x:" when it leaves the line.
TAKE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local state, line, lately = KEYS[1], KEYS[2], KEYS[3]
local me, count = ARGV[1], tonumber(ARGV[2])
local hold, patience = tonumber(ARGV[3]), tonumber(ARGV[4])
local corrections, requests = tonumber(ARGV[5]), tonumber(ARGV[6])
local at = 6
local function read()
  at = at + 1
  return ARGV[at]
end
local function text(number) return string.format('%.3f', number) end
local function field(name) return redis.call('HGET', state, name) end

local seen = tonumber(field('seen') or '0')
local back = now < seen and seen - now or 0 -- the server's clock has been set back by so much
local held = tonumber(field('hold') or '0') - back
local call = math.max(tonumber(field('call') or '0') + 1, now)
redis.call('ZADD', lately, now, me)
redis.call('ZREMRANGEBYSCORE', lately, '-inf', now - 10000000)
if back > 0 then redis.call('ZREMRANGEBYSCORE', lately, '(' .. now, '+inf') end

-- The limits: when each is full, and the time for one token.
local limits = {}
local function note(limit)
  local lack = math.max(0, limit.full - now) / limit.interval
  while true do
    local last = redis.call('LINDEX', limit.notes, -1)
    if not last or tonumber(string.match(last, ' (%S+)')) < lack then break end
    redis.call('RPOP', limit.notes)
  end
  redis.call('RPUSH', limit.notes, string.format('%.0f %.6f', call, lack))
  if redis.call('LLEN', limit.notes) > 64 then -- of the first two the lesser lack, the later moment
    local lesser = string.match(redis.call('LPOP', limit.notes), ' (%S+)')
    local later = string.match(redis.call('LPOP', limit.notes), '(%S+) ')
    redis.call('LPUSH', limit.notes, later .. ' ' .. lesser)
  end
end
local function forget(limit) -- nothing comes back from before
  redis.call('DEL', limit.notes)
  redis.call('RPUSH', limit.notes, string.format('%.0f 0', call))
end
local function give_back(limit, number, unused)
  note(limit)
  local kept, back_ = {}, nil
  for _, each in ipairs(redis.call('LRANGE', limit.notes, 0, -1)) do
    local noted, lack = string.match(each, '(%S+) (%S+)')
    noted, lack = tonumber(noted), tonumber(lack)
    if noted > number then -- from here on it would have lacked less
      back_ = back_ or math.min(unused, lack)
      lack = lack - back_
    end
    while #kept > 0 and kept[#kept][2] >= lack do table.remove(kept) end
    kept[#kept + 1] = {noted, lack}
  end
  redis.call('DEL', limit.notes)
  for _, each in ipairs(kept) do
    redis.call('RPUSH', limit.notes, string.format('%.0f %.6f', each[1], each[2]))
  end
  limit.full = math.max(limit.full, now) - (back_ or 0) * limit.interval
end
local function lack_at_least(limit, lack)
  limit.full = math.max(limit.full, now + lack * limit.interval)
end
for i = 1, count do
  local name, tokens, per, share = read(), tonumber(read()), tonumber(read()), tonumber(read())
  local observed, left = read(), read()
  local limit = {name = name, per = per, notes = KEYS[3 + i]}
  local given, known = string.match(field('n:' .. name) or '', '(%S+) (%S+)')
  limit.tokens = given and tonumber(given) == tokens and tonumber(known) or tokens
  limit.interval = per / limit.tokens
  limit.full = tonumber(field('f:' .. name) or '-1')
  if limit.full < 0 then
    limit.full = now + (1 - share) * limit.tokens * limit.interval
    forget(limit)
  elseif back > 0 then
    limit.full = limit.full - back
    forget(limit)
  end
  if observed ~= '' and tonumber(observed) ~= limit.tokens then
    note(limit)
    local lack = math.max(0, limit.full - now) / limit.interval
    limit.tokens = tonumber(observed)
    limit.interval = per / limit.tokens
    limit.full = now + lack * limit.interval
    redis.call('HSET', state, 'n:' .. name, string.format('%.6f %.6f', tokens, limit.tokens))
  end
  if left ~= '' then
    note(limit)
    lack_at_least(limit, math.max(limit.tokens, 1) - tonumber(left))
  end
  limit.most = math.max(limit.tokens, 1)
  if hold >= 0 then
    lack_at_least(limit, limit.most)
    forget(limit)
  end
  limits[i] = limit
end
if hold >= 0 then held = math.max(held, now + hold) end
for _ = 1, corrections do
  local granted_by = tonumber(read())
  for i = 1, count do
    local unused, limit = tonumber(read()), limits[i]
    if unused > 0 then
      give_back(limit, granted_by, unused)
    elseif unused < 0 then
      note(limit)
      limit.full = math.max(limit.full, now) - unused * limit.interval
    end
  end
end

-- The line: what those in front of this process need.
local before = {}
for i = 1, count do before[i] = 0 end
local function in_front()
  local sums = {}
  for i = 1, count do sums[i] = 0 end
  for _, who in ipairs(redis.call('ZRANGE', line, 0, -1)) do
    if who == me then break end
    local leaves = tonumber(field('x:' .. who) or '0')
    if leaves < now or leaves > now + patience then -- it is dead, or the clock was set back
      redis.call('ZREM', line, who)
      redis.call('HDEL', state, 'c:' .. who, 'x:' .. who)
    else
      local i = 0
      for cost in string.gmatch(field('c:' .. who), '%S+') do
        i = i + 1
        sums[i] = (sums[i] or 0) + tonumber(cost)
      end
    end
  end
  return sums
end
local function due(costs, sums)
  local last = math.max(now, held)
  for i, limit in ipairs(limits) do
    if costs[i] > 0 then
      last = math.max(last, limit.full - (limit.most - costs[i] - sums[i]) * limit.interval)
    end
  end
  return last
end
local function join()
  redis.call('ZADD', line, redis.call('HINCRBY', state, 'turn', 1), me)
end
if requests > 0 and not redis.call('ZSCORE', line, me) then join() end
local sums = in_front()
local granted, wait, waits = 0, 0, nil
for _ = 1, requests do
  local costs = {}
  for i = 1, count do costs[i] = tonumber(read()) end
  if due(costs, sums) > now + 1 then
    waits = costs
    break
  end
  granted = granted + 1
  for i, limit in ipairs(limits) do
    if costs[i] > 0 then
      note(limit)
      limit.full = math.max(limit.full, now) + costs[i] * limit.interval
    end
  end
end
if waits then
  if granted > 0 then -- the others come first now
    join()
    sums = in_front()
  end
  wait = due(waits, sums) - now
  redis.call('HSET', state, 'c:' .. me, table.concat(waits, ' '),
      'x:' .. me, text(now + math.min(wait, patience / 2) + patience / 2))
else
  redis.call('ZREM', line, me)
  redis.call('HDEL', state, 'c:' .. me, 'x:' .. me)
end

local answer = {granted, string.format('%.0f', call), text(wait), text(math.max(0, held - now)),
    redis.call('ZCARD', lately)}
local last = math.max(now, held)
for _, limit in ipairs(limits) do
  redis.call('HSET', state, 'f:' .. limit.name, text(limit.full))
  last = math.max(last, limit.full)
  answer[#answer + 1] = text(limit.tokens)
  answer[#answer + 1] = text(limit.most - math.max(0, limit.full - now) / limit.interval)
end
redis.call('HSET', state, 'seen', string.format('%.0f', now), 'hold', text(held),
    'call', string.format('%.0f', call))
local left = math.ceil((last - now) / 1000) + 86400000
for i = 1, #KEYS do redis.call('PEXPIRE', KEYS[i], left) end
return answer
""")


class LimitSpec(NamedTuple):
    """One limit."""

    name: str
    tokens: float
    """How many become available in ``per`` seconds, and the most that there are."""
    per: float


class Correction(NamedTuple):
    """What comes back of a request that was granted."""

    number: int
    """The number of the call that granted it."""
    unused: tuple[float, ...]
    """What comes back of each limit; less than 0 for what is taken beside."""


class Report(NamedTuple):
    """What a process reports, and what it asks for."""

    hold: float | None
    """For how many seconds nothing is to be granted, if there is such news."""
    limit: Mapping[str, float]
    """What the service said that it allows."""
    remaining: Mapping[str, float]
    """What it said that is left."""
    corrections: Sequence[Correction]
    requests: Sequence[tuple[float, ...]]


class Answer(NamedTuple):
    """What the server answers."""

    granted: int
    """How many of the requests, from the first on."""
    number: int
    """The number of the call."""
    wait: float
    """Seconds until the next one would be due."""
    held: float
    """Seconds for which nothing is granted."""
    processes: int
    """The processes that have called within ten seconds."""
    limits: tuple[float, ...]
    """The tokens of each limit that become available in its time."""
    levels: tuple[float, ...]
    """How many tokens of each there are; less than 0 for a debt."""


class SharedLevels:
    """
    The limits of one key.

    Args:
        store: The server.
        key: What they are for.
        limits: The limits.
        start: The share of each that is there at first.
        patience: The most seconds between two calls of a process that waits, as it sees them twice.
    """

    __slots__ = ("_keys", "_limits", "_patience", "_start", "_store")

    def __init__(
        self,
        store: Store,
        key: str,
        limits: Sequence[LimitSpec],
        *,
        start: float,
        patience: float,
    ) -> None:
        base = f"mtaio:quota:{{{key}}}"
        self._keys = [base, f"{base}:line", f"{base}:lately"]
        self._keys += [f"{base}:notes:{limit.name}" for limit in limits]
        self._store = store
        self._limits = tuple(limits)
        self._start = start
        self._patience = patience * 1e6

    async def exchange(self, process: str, report: Report) -> Answer:
        """Report to the server; return what it grants."""
        args: list[Argument] = [
            process,
            len(self._limits),
            -1 if report.hold is None else report.hold * 1e6,
            self._patience,
            len(report.corrections),
            len(report.requests),
        ]
        for name, tokens, per in self._limits:
            observed, left = report.limit.get(name, ""), report.remaining.get(name, "")
            args += (name, tokens, per * 1e6, self._start, observed, left)
        for correction in report.corrections:
            args += (correction.number, *correction.unused)
        for costs in report.requests:
            args += costs
        answer = await self._store.script(TAKE, self._keys, args)
        granted, number, wait, held, processes, *numbers = answer
        pairs = [float(each) for each in numbers]
        return Answer(
            granted,
            int(number),
            float(wait) / 1e6,
            float(held) / 1e6,
            processes,
            tuple(pairs[::2]),
            tuple(pairs[1::2]),
        )
